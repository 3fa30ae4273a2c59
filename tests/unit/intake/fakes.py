"""Shared by the tests of a connection: a server without a network, and a transport and a pipeline of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from forebay.denials.denials import Denials
from forebay.errors import KeyNotKnown, Rejection
from forebay.intake.answers import ServerLines
from forebay.intake.connection import Connection
from forebay.intake.foreign import document_makers
from forebay.intake.formats.registry import list_addresses
from forebay.intake.guard import Guard
from forebay.intake.intake import Intake, Request
from forebay.intake.limits import ConnectionLimits, ConnectionTimeouts, RequestLimits
from forebay.model import Ack
from forebay.pipeline.admitter import Admitter
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.keys import Key
from forebay.tokens.provider import make_own_provider
from forebay.tokens.verifier import TokenVerifier

SECRET = "a secret that is long enough for HS256"
REQUEST_LIMITS = RequestLimits(header_bytes_max=4_000, body_bytes_max=400_000, batch_events_max=1_000)
REQUEST_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 20.0
CONNECTIONS_MAX = 10
IN_HAND_BYTES_MAX = 1_000_000
NO_DENIALS = Path("no such list")


class FakeAdmitter:
    """Keeps requests until the test answers them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def admit(self, request: Request, ack: Ack) -> None:
        del ack
        self.requests.append(request)


class FakeTransport(asyncio.Transport):
    """Keeps what is written; as strict as a real one about the end."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        super().__init__()
        self.peer = peer
        self.written = b""
        self.writes = 0
        self.unsent_bytes = 0
        self.ended = ""
        self.is_half_closed = False
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_half_closed, "written after write_eof"
        assert not self.ended, "written after the end"
        self.written += bytes(data)
        self.writes += 1

    def write_eof(self) -> None:
        self.is_half_closed = True

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.peer, 40_000) if name == "peername" else default

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]


class LateKeys:
    """The keys of a provider whose answer comes when the test lets it."""

    def __init__(self) -> None:
        self._keys: Sequence[Key] | None = None
        self._fetched = asyncio.Event()
        self.waiting = 0

    def find(self, key_id: str | None, *, is_last_try: bool) -> Sequence[Key]:
        del key_id
        if self._keys is not None:
            return self._keys
        if is_last_try:
            headers = (("Retry-After", "10"),)
            raise Rejection(HTTPStatus.SERVICE_UNAVAILABLE, "the key is not known yet", headers=headers)
        fetched = self._fetched
        raise KeyNotKnown(lambda: self._wait(fetched))

    async def _wait(self, fetched: asyncio.Event) -> None:
        self.waiting += 1
        await fetched.wait()
        self.waiting -= 1

    def publish(self, *keys: Key) -> None:
        """Let the provider publish these keys, and those go on who wait for them."""
        self._keys = keys
        self.end_the_wait()

    def end_the_wait(self) -> None:
        """Let those go on who wait, although the provider did not answer."""
        self._fetched.set()
        self._fetched = asyncio.Event()


class Server:
    """The parts of a server that connections share."""

    def __init__(
        self,
        request_limits: RequestLimits = REQUEST_LIMITS,
        in_hand_bytes_max: int = IN_HAND_BYTES_MAX,
        origins: Sequence[str] = (),
        denials: Path = NO_DENIALS,
        **settings: Any,
    ) -> None:
        self.counters = Counters()
        self.denials = Denials(denials, self.counters)
        self.verifier = TokenVerifier(make_own_provider([SECRET]), self.denials)
        self.admitter = FakeAdmitter()
        self.limits = ConnectionLimits(CONNECTIONS_MAX, in_hand_bytes_max, self.counters)
        self.state = ServerState()
        makers = document_makers(
            "test", datetime(2024, 1, 1, tzinfo=UTC), self.counters, require_log_id=False, denials=self.denials
        )
        guard = Guard(
            self.verifier,
            self.denials,
            Settings(_env_file=None, cors_origins=origins, **settings),
            request_limits,
            self.counters,
        )
        admitter = cast("Admitter", self.admitter)
        self.intake = Intake(list_addresses(), guard, makers, admitter, request_limits, self.counters)
        self._timeouts = ConnectionTimeouts(REQUEST_TIMEOUT_S, KEEP_ALIVE_S)
        self._lines = ServerLines()

    def connect(
        self, app: Callable[..., Any] | None = None, peer: str = "192.0.2.1", kind: type[Connection] = Connection
    ) -> tuple[Connection, FakeTransport]:
        config = cast("uvicorn.Config", SimpleNamespace(loaded_app=app))
        connection = kind(self.intake, self._timeouts, self.limits, self._lines, config=config, server_state=self.state)
        transport = FakeTransport(peer)
        connection.connection_made(transport)
        return connection, transport
