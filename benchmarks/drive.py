"""A fixed drive of an event's way in, without sockets and threads, for `benchmarks/instructions.py` to count.

Connections, intake, pipeline and journal are those that the server puts together; the transport and the spool are fakes
that answer at once. Each part of the drive runs in processes that are forked after all imports: in one its first round
alone, in another all rounds. The difference of their counts is that of the rounds, without set-up.

Prints, for each drive, the numbers of the processes of the way in, and of plain Python with the same requests. Single
events are driven twice: without limits, and with one for each kind of sender.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast
from unittest import mock

import msgspec
import uvicorn
import uvloop
from uvicorn.server import ServerState

from forebay.admin.snapshot import ServerSnapshot
from forebay.clock import now_ms
from forebay.denials.denials import Denials
from forebay.errors import SpoolUnavailable
from forebay.server import Deliverer, configure_http
from forebay.settings import load_settings
from forebay.sinks.selection import make_sink
from forebay.spool.records import Totals, Transaction
from forebay.spool.spool import Spool
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from forebay.tokens.selection import make_verifier

SINGLE_CONNECTIONS, SINGLE_ROUNDS = 50, 20
BATCH_CONNECTIONS, BATCH_ROUNDS = 10, 10
BATCH_EVENTS = 100
TOKEN_LIFE_S = 3600
TURNS_MAX = 20
"""Turns of the event loop in which a round must be answered."""

PEER = ("192.0.2.7", 40_000)

LIMITS = {"token_rate_per_s": 1e6, "device_rate_per_s": 1e6, "address_rate_per_s": 1e6}
"""A rate for each kind of sender, which nobody reaches."""

NO_LIMITS: Mapping[str, float] = {}

OK = b"HTTP/1.1 200 OK\r\n"

HEAD = (
    "POST {path} HTTP/1.1\r\n"
    "Host: events.example.com\r\n"
    "User-Agent: Shop/3.14.0 (iPhone; iOS 19.2)\r\n"
    "Accept: */*\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Authorization: Bearer {token}\r\n"
    "device-uuid: {device}\r\n"
    "app-version: 3.14.0\r\n"
    "os-version: iOS 19.2\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: {length}\r\n"
    "\r\n"
)

Done = Callable[[Mapping[int, int] | SpoolUnavailable], None]


Round: TypeAlias = list[bytes]
"""Requests that arrive together, one on each connection: their events are committed together."""


# The seams


class Answers(asyncio.Transport):
    """A transport to nobody that counts good answers."""

    def __init__(self) -> None:
        super().__init__({"peername": PEER})
        self.good = 0
        self.other = b""

    def write(self, data: Any) -> None:
        """Count a good answer, and keep any other."""
        if data.startswith(OK):
            self.good += 1
        else:
            self.other = bytes(data)

    def is_closing(self) -> bool:
        """Return that it is open: nobody closes it."""
        return False

    def pause_reading(self) -> None:
        """Do nothing: input is only passed on when there is some."""

    def resume_reading(self) -> None:
        """Do nothing."""


class InstantSpool:
    """A spool that has every commit on disk at the next turn of the event loop."""

    totals = Totals(0, 0, 0, 0, 0)
    last_group_id = 0
    dead_bytes = 0
    refusal = ""

    def start(self, loop: asyncio.AbstractEventLoop, repair: object) -> None:
        """Start in an event loop."""
        del repair
        self._loop = loop

    def commit(self, transaction: Transaction, done: Done, awaited: Sequence[int]) -> None:
        """Answer with the size of each new row."""
        del awaited
        self._loop.call_soon(done, {group.id: 0 for group in transaction.inserts})


# The requests


def make_event(number: int) -> dict[str, Any]:
    """Return an ordinary event of about 300 bytes."""
    return {
        # As a client makes it: a UUIDv7 with the time of the event.
        "log_id": str(uuid.UUID(int=now_ms() << 80 | 7 << 76 | 2 << 62 | number)),
        "page": ("home", "search", "product", "cart", "checkout")[number % 5],
        "event": ("view", "click", "scroll", "impression")[number % 4],
        "label": ("Add to basket", "Buy now", "See all reviews", "바로구매")[number % 4],
        "target": f"product-{1_000_000 + number}",
        "section": ("top-banner", "recommendations", "footer")[number % 3],
        "param": {"product_id": 1_000_000 + number, "price": 1_990, "currency": "KRW", "logged_in": True},
    }


def make_batch(number: int) -> list[dict[str, Any]]:
    """Return the events of a batch."""
    return [make_event(number * BATCH_EVENTS + offset) for offset in range(BATCH_EVENTS)]


def make_rounds(path: str, make_content: Callable[[int], object], rounds: int, connections: int) -> list[Round]:
    """Return the requests of each round; every connection has a client with a token of its own."""
    secret = os.environ["JWT_SECRET"]
    tokens = [make_token(secret, f"user-{number}", [Scope.WRITE], TOKEN_LIFE_S) for number in range(connections)]

    def make_request(number: int) -> bytes:
        client = number % connections
        body = json.dumps(make_content(number), ensure_ascii=False, separators=(",", ":")).encode()
        head = HEAD.format(path=path, token=tokens[client], device=uuid.UUID(int=client), length=len(body))
        return head.encode() + body

    return [[make_request(turn * connections + client) for client in range(connections)] for turn in range(rounds)]


# The drive


async def send(rounds: Sequence[Round], limits: Mapping[str, float]) -> None:
    """Send the requests of each round at once, and wait for their answers before the next round."""
    settings = load_settings().model_copy(update=limits)
    counters = Counters()
    denials = Denials(settings.denials_path, counters)
    deliverer = Deliverer(settings, cast("Spool", InstantSpool()), make_sink(settings), counters)
    verifier, _ = make_verifier(settings, os.environ["JWT_SECRET"], counters, denials)
    config = configure_http(settings, verifier, denials, deliverer, _collect)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 26 Nov 2026 12:00:00 GMT")]
    transports = [Answers() for _ in rounds[0]]
    connections = [connect(config, state, transport) for transport in transports]
    for answered, requests in enumerate(rounds, 1):
        for connection, request in zip(connections, requests, strict=True):
            connection.data_received(request)
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
        if any(transport.good != answered for transport in transports):
            raise AssertionError(f"not every request got a 200: {[transport.other for transport in transports]}")


def connect(config: uvicorn.Config, state: ServerState, transport: Answers) -> asyncio.Protocol:
    """Make a connection as uvicorn does."""
    make = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
    connection = make(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
    connection.connection_made(transport)
    return connection


async def _collect() -> ServerSnapshot:
    raise NotImplementedError("nobody asks for metrics here")


def send_all(rounds: Sequence[Round], limits: Mapping[str, float] = NO_LIMITS) -> None:
    """Send all rounds in an event loop like the server's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send(rounds, limits))


def send_limited(rounds: Sequence[Round]) -> None:
    """Send all rounds to a server that counts the events of each sender."""
    send_all(rounds, LIMITS)


def run_plain(rounds: Sequence[Round]) -> None:
    """Do the least that Python can do with these requests: split the head, decode the events, add fields, encode.

    It needs interpreter and libraries in about the same shares as the way in, so that different builds of one
    interpreter agree about the ratio.
    """
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for requests in rounds:
        for request in requests:
            head, _, body = request.partition(b"\r\n\r\n")
            lines = [line.partition(b": ") for line in head.split(b"\r\n")]
            headers = {name.lower(): value for name, _, value in lines}
            content = msgspec.json.decode(body)
            for event in content if isinstance(content, list) else [content]:
                event["user_agent"] = headers[b"user-agent"].decode()
                event["received_at"] = now
                msgspec.json.encode(event)


def run_twice(run: Callable[[Sequence[Round]], None], rounds: Sequence[Round]) -> tuple[int, int]:
    """Run the first round alone, then all of them; return the numbers of the two processes."""
    return run_apart(run, rounds[:1]), run_apart(run, rounds)


def run_apart(run: Callable[[Sequence[Round]], None], rounds: Sequence[Round]) -> int:
    """Run in a forked process; return its number once it has ended well."""
    pid = os.fork()
    if pid == 0:
        try:
            run(rounds)
        except BaseException:  # noqa: BLE001 - the fork must not go on as if it were the parent
            traceback.print_exc()
            os._exit(1)
        # At once: freeing everything is no part of the drive.
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise SystemExit(1)
    return pid


def main() -> None:
    """Run every drive."""
    # The server collects so rarely that a collection here would be chance.
    gc.disable()
    # Under valgrind hardly two requests come within a millisecond. In a busy server dozens do, and share its texts.
    mock.patch("time.time_ns", itertools.repeat(time.time_ns()).__next__).start()
    singles = make_rounds("/events", make_event, 1 + SINGLE_ROUNDS, SINGLE_CONNECTIONS)
    batches = make_rounds("/events/batch", make_batch, 1 + BATCH_ROUNDS, BATCH_CONNECTIONS)
    plain, plain_batch = run_twice(run_plain, singles), run_twice(run_plain, batches)
    drives = {
        "single": (run_twice(send_all, singles), plain),
        "limited": (run_twice(send_limited, singles), plain),
        "batch": (run_twice(send_all, batches), plain_batch),
    }
    print(json.dumps(drives))


if __name__ == "__main__":
    main()
