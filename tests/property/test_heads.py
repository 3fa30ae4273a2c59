"""A request that is taken by a known head has the same outcome as one that is parsed, whatever arrives in which pieces.

Each history is driven twice: once as usual, and once on a server that knows no head.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import quote_plus

import jwt
import pytest
from hypothesis import HealthCheck, event, example, given, settings, target
from hypothesis import strategies as st
from structlog.testing import capture_logs

from forebay.denials.denials import _index
from forebay.denials.entries import Kind
from forebay.errors import Rejection, SpoolInDoubt, SpoolUnavailable
from forebay.intake.answers import Turn
from forebay.intake.asgi import AsgiRequest
from forebay.intake.connection import PIECE_BYTES, Connection
from forebay.intake.heads import Grant, KnownHeads
from forebay.intake.intake import Request
from forebay.intake.limits import RequestLimits
from forebay.model import Ack, Admission
from forebay.tokens.keys import Key
from forebay.tokens.parts import digest_token
from forebay.tokens.provider import Provider, make_own_provider
from testbed.traffic.packing import MIB, PACK, bomb
from unit.denials.making import denial
from unit.intake.fakes import SECRET, FakeAdmitter, FakeTransport, LateKeys, Server

# A loaded machine is no reason to fail.
unhurried = settings(
    deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

START = datetime(2026, 3, 15, tzinfo=UTC)
HOUR_S = 3_600
HEADER_BYTES_MAX = 1_024
LIMITS = RequestLimits(HEADER_BYTES_MAX, body_bytes_max=400, batch_events_max=2)


OLD_SECRET = "an older secret that is long enough for HS256"
THEIR_SECRET = "another secret that is long enough for HS256"
ISSUER = "id"
SHOP = b"https://shop.example"


def make_token(
    subject: str, scope: str = "events:write", lifetime_s: float = HOUR_S, secret: str = SECRET, **more: object
) -> bytes:
    claims = {"sub": subject, "exp": int(START.timestamp() + lifetime_s), "scope": scope, **more}
    return jwt.encode(claims, secret, algorithm="HS256").encode()


def bearer(subject: str, *args: Any, **more: Any) -> bytes:
    return b"Bearer " + make_token(subject, *args, **more)


BEACON = make_token("alice")
ALICE = b"Bearer " + BEACON
LATE = make_token("carol", secret=THEIR_SECRET, iss=ISSUER)
BRIEF = bearer("brief", lifetime_s=5)

# A request: the usual first, which is what a failing example shrinks to.

PLACES = (
    b"POST /events",
    b"POST /events/batch",
    b"POST /events?ack=memory",
    b"POST /events?ack=tape",
    b"POST http://forebay/events",
    b"POST /%65vents",
    b"POST /events?length: 5",
    b"POST /events?Content-Length:5",
    b"POST /events?access_token=" + BEACON,
    b"POST /events?access_token=" + LATE,
    b"OPTIONS /events",
    b"PUT /events",
    b"GET /ping",
    b"HEAD /ping",
    b"POST /ping",
    b"POST /admin/x",
    b"GET /admin/x",
    b"CONNECT forebay:1",
)
VERSIONS = (b"1.1", b"1.0", b"0.9", b"2.0", b"1.2")
TOKENS = (
    ALICE,
    bearer("bob"),
    BRIEF,
    bearer("late", lifetime_s=-HOUR_S),
    bearer("reader", "events:read"),
    bearer("dave", secret=OLD_SECRET, jti="j"),
    bearer("erin", rate=0.2),
    bearer("alice", rate=0.2),
    bearer("page", origins=[SHOP.decode()]),
    bearer("batch", formats=["batch"]),
    bearer("mallory", iss=ISSUER),
    b"Bearer " + LATE,
    b"Bearer x",
    b"",
)
# Of a page, or of a device: a preflight asks before it sends, and a beacon does not.
TEXT = b"Content-Type: text/plain;charset=UTF-8"
FORM = b"Content-Type: application/x-www-form-urlencoded"
SENDERS = (
    b"Origin: " + SHOP,
    b"Origin: " + SHOP + b"\r\nAccess-Control-Request-Method: POST",
    b"Origin: https://other.example",
    b"Origin: https://forebay\r\nHost: forebay",
    b"Device-UUID: 3f0a",
    b"Device-UUID: 4b1c",
    b"X-Forwarded-For: 198.51.100.1",
)
LINES = (
    b"X: y",
    b"X:y",
    b"X: ",
    b"Device-UUID: 3f0a",
    b"Device-UUID: 4b1c",
    b"Content-Type: application/json",
    b"Content-Type: application/x-ndjson; x=y",
    b"Content-Type: text/plain",
    b"Content-Encoding: gzip",
    b"Content-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: keep-alive, upgrade\r\nUpgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"expect: 100-Continue",
    b"Expect: 100-continue\r\nExpect: x",
    b"X-Length: 5",
    b"X-Content-Length: 5",
    b"Content-Length: 5",
    b"content-length:5",
    b"CONTENT-LENGTH: 5",
    b"X: y\r\n Content-Length: 5",
    b"X: y\r\n\tContent-Length: 5",
    b"X: y\nContent-Length: 5",
    b"X: y\rContent-Length: 5",
    b"X: y\r\n\r\nContent-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding : chunked",
    b"\xff: \xff",
    b"X: \x00",
    *(b"\r\n".join([b"a:b"] * lines) for lines in (40, 96, 97, 98, 99, 100)),
)
NAMES = (
    b"Content-Length: ",
    b"content-length: ",
    b"Content-length: ",
    b"CONTENT-LENGTH: ",
    b"Content-Length:",
    b"Content-Length:  ",
    b"Content-Length:\t",
    b"Content-Length : ",
    b" Content-Length: ",
    b"X-Content-Length: ",
    b"Content-Length: \r\n ",
)
DIGITS = (
    "{}",
    "{:03}",
    "{:09}",
    "{:010}",
    "{:019}",
    "{:030}",
    "+{}",
    "-{}",
    "{} ",
    "{}\t",
    " {}",
    "{},{}",
    "{}.0",
    "1_{}",
    "0x{:x}",
    "{}\r\n ",
    "{}\r\n 0",
    "{}\r",
    "{}\n",
    "",
    "9999999999999999999",
    "18446744073709551621",
    "\u0665",
)
LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b" \r\n")
HEAD_ENDS = (b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"")
PATCHES = (b"", b"\r", b"\n", b":", b" ", b"0", b"\x00")
NEWLINES = (b"", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\r")
EVENT = b'{"page":"a","event":"b","log_id":"c"}'
SMALL = b"POST /events HTTP/1.1\r\nAuthorization: %b\r\nContent-Length: " % ALICE
INFO = EVENT.removesuffix(b"}")
BEACONS = (
    b'%b,"access_token":"%b"}' % (INFO, BEACON),
    b'%b,"access_token":"%b"}' % (INFO, LATE),
    b'%b,"access_token":"x"}' % INFO,
    b"access_token=%b&data=%b" % (BEACON, quote_plus(EVENT).encode()),
    b"access_token=%b&data=%b" % (LATE, quote_plus(EVENT).encode()),
    b"data=%b" % quote_plus(EVENT).encode(),
)
BODIES = (
    EVENT,
    b'{"page":"a","event":"bcdef"}',
    b"",
    b"x",
    b"hello",
    EVENT + b"\r\n",
    EVENT + b"\n",
    b"\r\n\r\n" + EVENT,
    b"\xef\xbb\xbf" + EVENT,
    b"[%b,%b]" % (EVENT, EVENT),
    b"[%b,%b,%b]" % (EVENT, EVENT, EVENT),
    b'[{"page":1}]',
    b'{"page":1}',
    EVENT + b"\n" + EVENT,
    b"Content-Length: 5\r\n\r\nhello",
    b"\r\nContent-Length: 5\r\n\r\nhello",
    SMALL + b"37\r\n\r\n" + EVENT,
    b"GET /ping HTTP/1.1\r\n\r\n",
    b" " * (LIMITS.body_bytes_max - len(EVENT)) + EVENT,
    b" " * (LIMITS.body_bytes_max + 1 - len(EVENT)) + EVENT,
    b'{"page":"a","event":"b","label":"%b"}' % (b"x" * 900),
)
TRAILERS = (b"", b"X: y\r\n", b"Content-Length: 5\r\n", b"content-length: 5\r\n", b"X-Length: 5\r\n")


# Most are unpacked at once; those of brotli, of two members, or over the limit wait for their turn.
PACKED = {
    coding: (pack(EVENT), *map(pack, BODIES[1:]), pack(EVENT) + pack(b" "), pack(EVENT)[:-1], bomb(coding, MIB), EVENT)
    for coding, pack in PACK.items()
}
PARTS = (
    *[""] * 8,
    *("place", "version", "token", "token", "lines", "lines", "name", "end", "frame", "size"),
    *("token", "token", "sender", "sender", "sender", "beacon", "beacon", "coding", "coding"),
)


class Head(NamedTuple):
    """The head of a request but for the digits, and how the body behind it is framed."""

    before: bytes
    after: bytes
    is_chunked: bool
    trailer: bytes
    bodies: Sequence[bytes] = BODIES


USUAL = Head(SMALL, b"\r\n\r\n", is_chunked=False, trailer=b"")


def make_head(rng: Random) -> Head:
    """Return a head in which up to two things are unusual."""
    odd = [rng.choice(PARTS), rng.choice(PARTS)]

    def choose(part: str, values: Sequence[bytes]) -> bytes:
        return rng.choice(values) if part in odd else values[0]

    token = choose("token", TOKENS)
    lines = [b"Authorization: " + token] if token else []
    is_beacon = "beacon" in odd
    if is_beacon:
        lines = [rng.choice([TEXT, FORM]), *lines[: rng.randint(-3, 1)]]
    coding = rng.choice([*PACKED]) if "coding" in odd else ""
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    if "sender" in odd:
        lines += rng.choices(SENDERS, k=rng.randint(1, 2))
    if "lines" in odd:
        for line in rng.choices(LINES, k=rng.randint(1, 2)):
            lines.insert(rng.randint(0, len(lines)), line)
    behind = rng.randint(0, len(lines))
    end = choose("end", LINE_ENDS)
    first = b"%b HTTP/%b" % (choose("place", PLACES), choose("version", VERSIONS))
    frame = b"Transfer-Encoding: chunked" if "frame" in odd else choose("name", NAMES)
    before = end.join([first, *lines[:behind], frame])
    after = b"".join(end + line for line in lines[behind:]) + end + choose("end", HEAD_ENDS)
    if "size" in odd:
        room = (
            rng.choice([HEADER_BYTES_MAX, HEADER_BYTES_MAX // 2])
            - len(before + after)
            - len(b"X: \r\n")
            + rng.randint(-4, 1)
        )
        before = before.replace(b"\r\n", b"\r\nX: " + b"x" * room + b"\r\n", 1)
    bodies = PACKED[coding] if coding else BEACONS + BODIES[:4] if is_beacon else BODIES
    return Head(before, after, "frame" in odd, rng.choice(TRAILERS), bodies)


def make_request(rng: Random, head: Head) -> bytes:
    """Return a request with a head, mostly as that announces it."""

    def rarely() -> bool:
        return rng.random() < 0.05

    body = rng.choice(head.bodies)
    if head.is_chunked:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        request = head.before + head.after + chunk + b"0\r\n" + head.trailer + b"\r\n"
    else:
        form = rng.choice(DIGITS) if rarely() else DIGITS[0]
        size = max(0, len(body) + (rng.randint(-2, 2) if rarely() else 0))
        request = head.before + form.format(size, size).encode() + head.after + body
    if rarely():
        request = rng.choice(NEWLINES) + request
    if rarely():
        # The rest of the address of another client.
        request = b"1" + request
    if rarely():
        request += rng.choice(NEWLINES)
    if rarely():
        place = rng.randint(0, len(request))
        request = request[:place] + rng.choice(PATCHES) + request[place + rng.randint(0, 2) :]
    return request


# A history: what arrives on a few connections, and what happens meanwhile.


class Step(NamedTuple):
    """Something that happens, mostly on one connection. A client that was refused opens a new one, unless stubborn."""

    name: str
    number: int = 0
    data: bytes = b""
    is_stubborn: bool = False


class Setting(NamedTuple):
    """The limits of a server, some so small that they are met."""

    piece_bytes: int
    unanswered_max: int
    heads_max: int
    in_hand_bytes_max: int
    senders: Mapping[str, Any]


# The address of each.
CONNECTIONS = ("192.0.2.1", "192.0.2.1", "192.0.2.11")
DENIALS = (
    (Kind.DEVICE, "3f0a"),
    (Kind.ADDRESS, "192.0.2.11"),
    (Kind.ADDRESS, "192.0.2.0/24"),
    (Kind.SUB, "alice"),
    (Kind.SUB, "carol"),
    (Kind.TOKEN, "j"),
    (Kind.TOKEN, digest_token(BEACON)),
)
SEEDS = 20
HAPPENINGS = (
    *("turn", "admit", "admit newest", "wait", "answer at once") * 4,
    *("keep", "refuse", "in doubt", "long wait", "pause", "resume", "lose") * 2,
    *("fail", "shut down", "end of input"),
    *("deny", "let in", "publish", "stay silent") * 2,
    *("remove a key", "remove their key"),
)
WAITS_S = {"wait": 4, "long wait": 40}
HABITS = ("keep", "answer at once", "fail")
CHANGES = ("deny", "let in", "publish", "stay silent", "remove a key", "remove their key")
ANSWERS = ("admit", "admit newest", "refuse", "in doubt")


def make_history(pool_seed: int, seeds: Sequence[int]) -> list[Step]:
    """Return steps in which a few heads are sent again and again; each seed but 0 makes steps of its own."""
    rng = Random(pool_seed)
    pool = [USUAL, USUAL, make_head(rng), make_head(rng)]
    unsent = [b""] * len(CONNECTIONS)
    steps: list[Step] = []
    for rng in map(Random, filter(None, seeds)):
        if rng.random() < 0.3:
            name = rng.choice(HAPPENINGS)
            steps.append(Step(name, rng.randrange(len(DENIALS if name == "deny" else CONNECTIONS))))
            continue
        number = rng.randrange(len(CONNECTIONS))
        data = unsent[number] + make_request(rng, rng.choice(pool))
        unsent[number] = b""
        cut = len(data)
        how = rng.random()
        if how < 0.1:
            unsent[number], data = data, b""
        elif how < 0.3:
            cut = rng.randint(1, len(data))
        is_stubborn = rng.random() < 0.2
        steps += [Step("send", number, part, is_stubborn) for part in (data[:cut], data[cut:]) if part]
    return steps


SETTINGS_OF_SENDERS: Mapping[str, Sequence[Any]] = {
    "origins": ([], [SHOP.decode()], ["*"]),
    "trusted_proxies": ((), (), "192.0.2.11"),
    "store_address": ("no", "cut", "whole"),
    "rate_burst_s": (10,),
    # At most three events at once, and one more in a wait.
    **{f"{kind}_rate_per_s": (None, None, None, 0.2) for kind in ("token", "device", "address")},
    **{f"{kind}_quota_per_day": (None, None, None, 4) for kind in ("token", "device", "address")},
}


UNLIMITED = Setting(16_384, 100, 5_000, 1_000_000, {})


def make_setting(seed: int) -> Setting:
    rng = Random(seed)
    # Half of the servers meet one of these limits or more.
    return Setting(
        piece_bytes=rng.choice([PIECE_BYTES] * 6 + [500, 50]),
        unanswered_max=rng.choice([100] * 5 + [3]),
        heads_max=rng.choice([5_000] * 5 + [1]),
        in_hand_bytes_max=rng.choice([1_000_000] * 5 + [2_000]),
        senders={name: rng.choice(values) for name, values in SETTINGS_OF_SENDERS.items()},
    )


seeds = st.integers(0, 2**32)
# All have the same number of seeds, or most would be short; a failing one is made shorter by making seeds 0.
histories = st.builds(make_history, seeds, st.lists(seeds, min_size=SEEDS, max_size=SEEDS))
configurations = st.builds(make_setting, seeds)


# Driving it


class Clock:
    """The time, for everything that asks."""

    passed_s = 0.0

    def time(self) -> float:
        return START.timestamp() + self.passed_s

    def time_ns(self) -> int:
        return int(self.time() * 1_000) * 1_000_000

    def now(self, tz: Any) -> datetime:
        del tz
        return START + timedelta(seconds=self.passed_s)


CLOCK = Clock()
THEIR_KEY = Key(None, frozenset({"HS256"}), THEIR_SECRET, jwt.api_jws.decode)


@pytest.fixture(scope="module", autouse=True)
def _same_each_time() -> Iterator[None]:
    """Let nothing differ between two runs of a history: times and made up ids."""
    with ExitStack() as patches:
        rooms = ("guard", "intake", "limits", "rates")
        for name in ("clock", "tokens.verifier", "denials.denials", *(f"intake.{room}" for room in rooms)):
            time = SimpleNamespace(time=CLOCK.time, monotonic=CLOCK.time, time_ns=CLOCK.time_ns)
            patches.enter_context(mock.patch(f"forebay.{name}.time", time))
        patches.enter_context(mock.patch("jwt.api_jwt.datetime", CLOCK))
        patches.enter_context(mock.patch("forebay.intake.documents.new_log_id", str))
        yield


class Loop(asyncio.SelectorEventLoop):
    """An event loop on that clock."""

    def time(self) -> float:
        return CLOCK.time()

    def run_in_executor(  # type: ignore[override]
        self, executor: object, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call the function now: a thread would be done at another time in each run."""
        del executor
        future = self.create_future()
        try:
            future.set_result(function(*args))
        except Rejection as error:
            future.set_exception(error)
        return future


class NoHeads(KnownHeads):
    """Knows no head, so that every request is parsed."""

    def find(self, peer: bytes, piece: bytes) -> None:
        del peer, piece


class CountingHeads(KnownHeads):
    """Counts the heads that it knows."""

    found = 0

    def find(self, peer: bytes, piece: bytes) -> tuple[Grant, bytes, bytes] | None:
        found = super().find(peer, piece)
        self.found += found is not None
        return found


class Pipeline(FakeAdmitter):
    """Does with a request as it is told; notes each that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Any] = []
        self.habit = HABITS[0]

    def admit(self, request: Request, ack: Ack) -> None:
        parts = [(part.index, list(part.entries), part.entry_bytes) for part in request.parts]
        grant = request.grant
        decided = (grant.claims, type(grant.format), grant.sender, grant.origin_lines, grant.limited_as, grant.version)
        self.noted.append((decided, ack, repr(request.results), parts))
        if self.habit == "fail":
            raise RuntimeError
        if self.habit == "answer at once":
            request.admitted(Admission.CREATED)
        else:
            self.requests.append(request)


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer with all that is known of the request."""
    message = await receive()
    body = repr((scope["method"], scope["raw_path"], scope["headers"], message)).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Drive:
    """Drives a server through a history, and notes everything that can be seen of it."""

    def __init__(self, known: KnownHeads, setting: Setting) -> None:
        self.pipeline = Pipeline()
        self.server = server = Server(LIMITS, setting.in_hand_bytes_max, **setting.senders)
        server.intake.heads = known
        server.intake._admitter = self.pipeline  # type: ignore[assignment]
        server.intake.guard.rates._clock = CLOCK.time
        server.verifier._own = make_own_provider([SECRET, OLD_SECRET])
        self.keys = LateKeys()
        server.verifier.add(ISSUER, Provider(self.keys, frozenset({"HS256"}), ISSUER))
        self.opened = [server.connect(app, peer) for peer in CONNECTIONS]
        self.lost: list[tuple[Connection, FakeTransport]] = []

    async def take(self, step: Step) -> None:
        if step.name == "turn":
            for number, (_, transport) in enumerate(self.opened):
                if transport.ended:
                    self.lose(number)
            for _ in range(3):
                await asyncio.sleep(0)
        elif step.name in WAITS_S:
            CLOCK.passed_s += WAITS_S[step.name]
            for connection, _ in self.opened:
                connection.expire(CLOCK.time())
        elif step.name in HABITS:
            self.pipeline.habit = step.name
        elif step.name in ANSWERS:
            self.answer(step)
        elif step.name in CHANGES:
            self.change(step)
        else:
            self.do(step, step.number)

    def do(self, step: Step, number: int) -> None:
        """Let something happen on a connection."""
        _, transport = self.opened[number]
        if step.name == "lose" or transport.ended or (transport.is_half_closed and not step.is_stubborn):
            self.lose(number)
        connection, transport = self.opened[number]
        match step.name:
            case "send":
                connection.data_received(step.data)
            case "pause" if not connection._flow.write_paused:
                transport.unsent_bytes = 500
                connection.pause_writing()
            case "resume" if connection._flow.write_paused:
                transport.unsent_bytes = 0
                connection.resume_writing()
            case "shut down":
                connection.shutdown()
            case "end of input" if not connection.eof_received():
                transport.close()

    def lose(self, number: int) -> None:
        connection, transport = self.opened[number]
        self.lost.append((connection, transport))
        transport.abort()
        connection.connection_lost(None)
        self.opened[number] = self.server.connect(app, CONNECTIONS[number])

    def answer(self, step: Step) -> None:
        waiting = self.pipeline.requests
        if not waiting:
            return
        request = waiting.pop() if step.name == "admit newest" else waiting.pop(0)
        if step.name == "refuse":
            request.refused(SpoolUnavailable("full"))
        elif step.name == "in doubt":
            request.refused(SpoolInDoubt("a sync failed"))
        else:
            request.admitted(Admission.CREATED)

    def change(self, step: Step) -> None:
        """Change what decides about a sender."""
        verifier = self.server.verifier
        match step.name:
            case "deny":
                self.server.denials._set(_index([denial(*DENIALS[step.number])]))
            case "let in":
                self.server.denials._set(_index([]))
            case "publish":
                self.keys.publish(THEIR_KEY)
            case "stay silent":
                self.keys.end_the_wait()
            case "remove their key":
                self.keys.publish()
                verifier.forget()
            case "remove a key":
                verifier._own = make_own_provider([SECRET])
                verifier.forget()

    def look(self) -> list[Any]:
        """Return everything that can be seen now."""
        limits = self.server.limits
        names = {connection: number for number, (connection, _) in enumerate(self.opened)}
        return [
            [look_at(*opened) for opened in self.opened],
            [transport.written for _, transport in self.lost],
            [names[connection] for users in (limits.idle, limits.slow) for connection in users],  # type: ignore[index]
            limits.used_bytes,
            repr(self.server.counters),
            len(self.pipeline.noted),
            self.keys.waiting,
        ]


def name_kind(turn: Turn) -> str:
    """Return the kind of a turn, as far as it makes a difference: over a limit, one is refused by its head or later."""
    is_answered = turn.response is not None and not isinstance(turn, AsgiRequest)
    return "answered" if is_answered else type(turn).__name__


def look_at(connection: Connection, transport: FakeTransport) -> list[Any]:
    reader = connection._reader
    turns = [
        (name_kind(turn), turn.response, turn.is_last, turn.connection_line, turn.used_bytes)
        for turn in connection._queue
    ]
    return [
        (transport.written, transport.ended, transport.is_half_closed, transport.is_paused),
        (connection._state, connection._deadline, connection._unread.ends_at, connection.used_bytes),
        (connection._unparsed, bytes(connection._body), connection._is_resuming, type(connection._arriving)),
        (reader.is_in_request, reader.is_stopped, reader.head_memory_bytes),
        turns,
    ]


def drive(history: list[Step], known: KnownHeads, setting: Setting) -> list[Any]:
    """Return all that can be seen after each step, then the requests that were taken and the lines in the log."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch("forebay.intake.connection.PIECE_BYTES", setting.piece_bytes))
        patches.enter_context(mock.patch("forebay.intake.connection.UNANSWERED_MAX", setting.unanswered_max))
        patches.enter_context(mock.patch("forebay.intake.heads.HEADS_MAX", setting.heads_max))
        lines = patches.enter_context(capture_logs())
        runner = patches.enter_context(asyncio.Runner(loop_factory=Loop))
        CLOCK.passed_s = 0.0
        return runner.run(_drive(history, known, setting, lines))


async def _drive(history: list[Step], known: KnownHeads, setting: Setting, lines: list[Any]) -> list[Any]:
    driven = Drive(known, setting)
    seen: list[Any] = []
    for step in itertools.chain(history, [Step("turn")] * 3):
        await driven.take(step)
        seen.append((step, driven.look()))
    for number in range(len(CONNECTIONS)):
        driven.lose(number)
    driven.keys.end_the_wait()
    for request in driven.pipeline.requests:
        request.admitted(Admission.CREATED)
    while driven.server.intake.guard._unpacking.waiting:
        await asyncio.sleep(0)
    await driven.take(Step("turn"))
    assert driven.server.limits.used_bytes == 0
    return [*seen, driven.pipeline.noted, [(line["event"], line.get("path")) for line in lines]]


@unhurried
@example(  # somebody over his limit, while another is slow and memory is short
    make_history(1359972, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 159, 209, 208, 833, 292]), make_setting(5765)
)
@given(histories, configurations)
def test_a_known_head_makes_no_difference(history: list[Step], setting: Setting) -> None:
    known = CountingHeads(HEADER_BYTES_MAX)

    seen = drive(history, known, setting)

    expected = drive(history, NoHeads(HEADER_BYTES_MAX), setting)
    for now, before in zip(seen, expected, strict=True):
        assert now == before
    target(float(known.found), label="requests with a known head")
    event(f"{min(known.found, 3)} requests or more with a known head")


HEAD_IN_BODY = b"\r\nContent-Length: 29\r\n\r\n"
HIDDEN = USUAL.before.removesuffix(b" ") + b"29\r\n\r\n" + HEAD_IN_BODY + b"hello"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([HIDDEN, HIDDEN.replace(b"29\r\n\r\nhello", b"5\r\n\r\nhello")], id="a head in a body"),
        # The two heads end as far from each other as the body and the piece.
        pytest.param(
            [
                HIDDEN + b"\r\n" * (len(HEAD_IN_BODY) // 2),
                HIDDEN.replace(b"29\r\n\r\nhello", b"27\r\n\r\nhello") + b"GET /ping HTTP/1.1\r\n\r\n",
            ],
            id="newlines behind it",
        ),
    ],
)
def test_a_head_that_is_made_to_be_misread_makes_no_difference(pieces: list[bytes]) -> None:
    history = [Step("send", 0, piece) for piece in pieces]

    seen = drive(history, KnownHeads(HEADER_BYTES_MAX), UNLIMITED)

    assert seen == drive(history, NoHeads(HEADER_BYTES_MAX), UNLIMITED)


def test_a_request_that_begins_with_the_rest_of_another_address_makes_no_difference() -> None:
    sent = b"%b%d\r\n\r\n%b" % (SMALL, len(EVENT), EVENT)
    rest = CONNECTIONS[2].removeprefix(CONNECTIONS[0]).encode()
    history = [Step("send", 2, sent), Step("send", 0, rest + sent)]

    seen = drive(history, KnownHeads(HEADER_BYTES_MAX), UNLIMITED)

    assert seen == drive(history, NoHeads(HEADER_BYTES_MAX), UNLIMITED)


def test_the_histories_do_take_requests_by_known_heads() -> None:
    first, second = (b"%b%d\r\n\r\n%b" % (SMALL, len(body), body) for body in BODIES[:2])
    known = CountingHeads(HEADER_BYTES_MAX)

    seen = drive([Step("send", number % 2, data) for number, data in enumerate([first, second] * 3)], known, UNLIMITED)

    assert (known.found, len(seen[-2])) == (5, 6)
