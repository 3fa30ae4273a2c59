"""A request from its head to its one answer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from forebay.denials.denials import Denials
from forebay.errors import FieldError, Rejection, SpoolInDoubt, SpoolUnavailable
from forebay.intake.answers import Answer, Turn
from forebay.intake.foreign import document_makers
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.event import decode_event
from forebay.intake.formats.format import Decoded, Example, Format, Result
from forebay.intake.formats.registry import Formats, list_addresses
from forebay.intake.formats.single import SingleEvent
from forebay.intake.guard import Guard, Head
from forebay.intake.heads import Grant
from forebay.intake.intake import Intake, Request
from forebay.intake.limits import RequestLimits
from forebay.intake.senders import encode_sender
from forebay.model import Ack, Admission, entry_document
from forebay.pipeline.admitter import Admitter
from forebay.pipeline.group import Part, Submission
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Claims, Scope
from forebay.tokens.making import make_token
from forebay.tokens.provider import make_own_provider
from forebay.tokens.verifier import TokenVerifier

NO_DENIALS = Denials(Path("no such list"), Counters())
SECRET = "a secret that is long enough for HS256"
# Longer than any run of the tests, at whose start the token is made.
DAY_S = 86_400
BEARER = f"Bearer {make_token(SECRET, 'alice', [Scope.WRITE], DAY_S)}".encode()
HEAD = {b"authorization": BEARER}
EVENTS = list_addresses()[b"/events"]
BATCH = list_addresses()[b"/events/batch"]
EVENT = b'{"page":"/home","event":"click"}'
CLOUD_EVENT = b'{"specversion":"1.0","id":"1","source":"/","type":"click"}'
ACCEPTED = (
    "application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json, "
    "text/plain, application/x-www-form-urlencoded"
)
OF_ONE_EVENT = (b"application/cloudevents+json", b"ce-specversion")
LIMITS = RequestLimits(header_bytes_max=1_000, body_bytes_max=1_000, batch_events_max=3)


class RecordingConnection:
    """Records the answers."""

    peer = b"192.0.2.1"

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.abandoned = 0

    def answer(self, turn: Turn, answer: Answer) -> None:
        del turn
        self.answers.append(answer)

    def abandon(self, turn: Turn) -> None:
        del turn
        self.abandoned += 1


class FakeAdmitter:
    """Keeps what it is given, and answers nothing by itself."""

    def __init__(self) -> None:
        self.admitted: list[tuple[Submission, Ack]] = []

    def admit(self, submission: Submission, ack: Ack) -> None:
        self.admitted.append((submission, ack))


@pytest.fixture
def connection() -> RecordingConnection:
    return RecordingConnection()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def admitter() -> FakeAdmitter:
    return FakeAdmitter()


@pytest.fixture
def intake(counters: Counters, admitter: FakeAdmitter) -> Intake:
    return make_intake(counters, admitter)


def make_intake(counters: Counters, admitter: FakeAdmitter, *, drops_repeated: bool = False, **settings: Any) -> Intake:
    verifier = TokenVerifier(make_own_provider([SECRET]))
    guard = Guard(verifier, NO_DENIALS, Settings(_env_file=None, **settings), LIMITS, counters)
    makers = document_makers(
        "test", datetime(2024, 1, 1, tzinfo=UTC), counters, require_log_id=False, drops_repeated=drops_repeated
    )
    return Intake(list_addresses(), guard, makers, cast("Admitter", admitter), LIMITS, counters)


@pytest.fixture
def request_of_two(connection: RecordingConnection, counters: Counters) -> Request:
    """A batch of three, one of which is rejected."""
    return Request(
        connection=connection,
        counters=counters,
        grant=Grant(Claims("alice", frozenset(), 0), EventBatch(), encode_sender("alice"), Ack.DISK),
        places=range(3),
        results=[b'"a"', Rejection(400, "not so", (FieldError("page", "is required"),)), b'"c"'],
        parts=[Part("events_test_2026-03", [b"first", b"third"], 10)],
        events=2,
        entry_bytes=10,
    )


def body_of(connection: RecordingConnection) -> Any:
    ((status, _, body),) = connection.answers
    assert status == 200
    return json.loads(body)


# The answer


def test_the_answer_to_a_batch_names_each_event(
    request_of_two: Request, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.admitted(Admission.PENDING)
    assert body_of(connection) == {
        "accepted": 2,
        "rejected": 1,
        "results": [
            {"index": 0, "log_id": "a", "status": "pending"},
            {
                "index": 1,
                "status": "rejected",
                "error": {"detail": "not so", "errors": [{"field": "page", "reason": "is required"}]},
            },
            {"index": 2, "log_id": "c", "status": "pending"},
        ],
    }
    assert counters.accepted == 2


def test_a_client_is_asked_to_send_events_again_that_were_not_stored(
    request_of_two: Request, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.refused(SpoolUnavailable("the disk is full"))
    assert connection.answers[0][0] == 503
    assert (counters.accepted, counters.unavailable) == (0, 2)


def test_events_get_no_answer_if_nobody_knows_whether_they_are_stored(
    request_of_two: Request, connection: RecordingConnection, counters: Counters
) -> None:
    request_of_two.refused(SpoolInDoubt("a sync failed"))
    assert (connection.answers, connection.abandoned) == ([], 1)
    assert counters.unavailable == 2


# From the head


def test_a_request_has_its_format_its_sender_and_its_acknowledgement(
    intake: Intake, connection: RecordingConnection
) -> None:
    headers = {
        b"content-type": b"application/json",
        b"device-uuid": b"3f0a",
        b"app-version": b"4.2",
        b"os-version": b"",
        b"user-agent": b"\xff",
    }
    grant = intake.begin(connection, Head(EVENTS, b"", HEAD | headers)).grant
    assert isinstance(grant.format, SingleEvent)
    assert grant.sender == encode_sender("alice", b"3f0a", b"4.2", b"", b"\xff")
    assert grant.ack is Ack.DISK


@pytest.mark.parametrize(
    ("query", "ack"),
    [(b"ack=memory", Ack.MEMORY), (b"ack=disk&ack=memory", Ack.MEMORY), (b"x=1", Ack.DISK), (b"ack=", Ack.DISK)],
)
def test_a_request_may_choose_its_acknowledgement(
    intake: Intake, connection: RecordingConnection, query: bytes, ack: Ack
) -> None:
    assert intake.begin(connection, Head(EVENTS, query, HEAD)).grant.ack is ack


@pytest.mark.parametrize("query", [b"ack=tape", b"ack=%ff", b"ack=memory&ack=MEMORY"])
def test_an_unknown_acknowledgement_is_refused(intake: Intake, connection: RecordingConnection, query: bytes) -> None:
    with pytest.raises(Rejection) as raised:
        intake.begin(connection, Head(EVENTS, query, HEAD))
    assert (raised.value.status, [error.field for error in raised.value.errors]) == (400, ["ack"])


@pytest.mark.parametrize(
    ("formats", "media_type", "form"),
    [
        (EVENTS, None, "SingleEvent"),
        (EVENTS, b"application/json", "SingleEvent"),
        (BATCH, None, "EventBatch"),
        (BATCH, b"Application/JSON ;charset=utf-8", "EventBatch"),
        (BATCH, b"application/x-ndjson", "EventLines"),
        (BATCH, b" application/X-NDJSON; x=y", "EventLines"),
        (EVENTS, b"text/plain;charset=UTF-8", "TextBeacon"),
        (BATCH, b"application/x-www-form-urlencoded", "FormBeacon"),
    ],
)
def test_the_media_type_chooses_the_format(
    intake: Intake, connection: RecordingConnection, formats: Formats, media_type: bytes | None, form: str
) -> None:
    headers = {} if media_type is None else {b"content-type": media_type}
    assert type(intake.begin(connection, Head(formats, b"", HEAD | headers)).grant.format).__name__ == form


@pytest.mark.parametrize(
    ("formats", "media_type", "accept"),
    [
        (EVENTS, b"text/x-ndjson", ACCEPTED),
        (EVENTS, b"", ACCEPTED),
        (BATCH, b"text/html", ACCEPTED),
        (BATCH, b"application/jsonx", ACCEPTED),
        (EVENTS, b"ce-specversion", ACCEPTED),
        (BATCH, b" CE-SpecVersion; x", ACCEPTED),
    ],
)
def test_another_media_type_is_refused_with_all_that_are_taken(
    intake: Intake, connection: RecordingConnection, formats: Formats, media_type: bytes, accept: str
) -> None:
    with pytest.raises(Rejection) as raised:
        intake.begin(connection, Head(formats, b"", HEAD | {b"content-type": media_type}))
    assert (raised.value.status, raised.value.headers) == (415, (("Accept", accept),))
    assert all(named in raised.value.detail for named in accept.split(", "))


def test_the_guard_decides_before_anything_else(intake: Intake, connection: RecordingConnection) -> None:
    with pytest.raises(Rejection) as raised:
        intake.begin(connection, Head(EVENTS, b"ack=tape", {b"content-type": b"text/html"}))
    assert raised.value.status == 401


# The body


def take(intake: Intake, connection: RecordingConnection, formats: Formats, body: bytes, query: bytes = b"") -> Request:
    request = intake.begin(connection, Head(formats, query, HEAD))
    intake.take(request, body)
    return request


@pytest.mark.parametrize(("query", "ack"), [(b"", Ack.DISK), (b"ack=memory", Ack.MEMORY)])
def test_events_go_to_the_pipeline_and_are_answered_by_it(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter, query: bytes, ack: Ack
) -> None:
    request = take(intake, connection, EVENTS, b'\xef\xbb\xbf{"page":"a","event":"b","log_id":"c"}', query)
    assert admitter.admitted == [(request, ack)]
    assert connection.answers == []
    (part,) = request.parts
    assert (request.events, request.entry_bytes) == (1, len(part.entries[0]))
    request.admitted(Admission.CREATED)
    assert body_of(connection) == {"status": "created", "log_id": "c"}


def test_the_good_events_of_a_batch_go_to_the_pipeline_by_their_index(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter, counters: Counters
) -> None:
    old = b'{"page":"a","event":"b","log_id":"old","timestamp":"2025-03-04T00:00:00Z"}'
    request = take(intake, connection, BATCH, b"[%b,5,%b]" % (EVENT, old))
    assert [submission for submission, _ in admitter.admitted] == [request]
    assert [len(part.entries) for part in request.parts] == [1, 1]
    assert request.parts[1].index == "events_test_2025-03"
    assert (request.events, request.entry_bytes) == (2, sum(part.entry_bytes for part in request.parts))
    assert (counters.rejected, counters.accepted) == (1, 0)
    request.admitted(Admission.CREATED)
    assert (counters.rejected, counters.accepted) == (1, 2)
    assert [row["status"] for row in body_of(connection)["results"]] == ["created", "rejected", "created"]


@pytest.mark.parametrize("drops_repeated", [False, True])
def test_an_event_that_is_there_twice_counts_as_it_is_answered_however_many_are_kept(
    connection: RecordingConnection, admitter: FakeAdmitter, counters: Counters, *, drops_repeated: bool
) -> None:
    intake = make_intake(counters, admitter, drops_repeated=drops_repeated, token_quota_per_day=3)
    event = b'{"page":"a","event":"b","log_id":"c"}'
    request = take(intake, connection, BATCH, b"[%b,5,%b]" % (event, event))
    assert [len(part.entries) for part in request.parts] == [1 if drops_repeated else 2]
    request.admitted(Admission.CREATED)
    answer = body_of(connection)
    assert (answer["accepted"], answer["rejected"]) == (counters.accepted, counters.rejected) == (2, 1)
    # What could not be kept counts nothing; two of three are counted before.
    for _ in range(3):
        take(intake, connection, BATCH, b"[%b,%b]" % (event, event)).refused(SpoolUnavailable("the disk is full"))
    assert counters.unavailable == 6
    take(intake, connection, BATCH, b"[%b,%b]" % (event, event))
    with pytest.raises(Rejection) as raised:
        take(intake, connection, BATCH, event)
    assert raised.value.status == 429


@pytest.mark.parametrize("body", [b"[]", b"[1,2]"])
def test_a_batch_without_good_events_is_answered_at_once(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter, counters: Counters, body: bytes
) -> None:
    request = take(intake, connection, BATCH, body)
    assert admitter.admitted == []
    answer = body_of(connection)
    assert (answer["accepted"], answer["rejected"]) == (0, len(request.results)) == (0, counters.rejected)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"page":"a","event":"b","timestamp":1e300}', b'{"page":"a","event":"b","log_id":"%b"}' % (b"x" * 513)],
)
def test_the_refusal_of_a_single_event_is_the_one_of_the_request(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter, counters: Counters, body: bytes
) -> None:
    with pytest.raises(Rejection) as raised:
        take(intake, connection, EVENTS, body)
    assert raised.value.errors
    assert (admitter.admitted, connection.answers) == ([], [])
    # Whoever catches it counts it.
    assert (counters.rejected, counters.accepted) == (0, 0)


@pytest.mark.parametrize("media_type", [media_type for media_type in BATCH if media_type not in OF_ONE_EVENT])
def test_a_batch_has_no_more_events_than_the_limit(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter, media_type: bytes
) -> None:
    for number in (3, 4):
        events = [CLOUD_EVENT if b"cloudevents" in media_type else EVENT] * number
        body = b"\n".join(events) if b"nd" in media_type else b"[" + b",".join(events) + b"]"
        request = intake.begin(connection, Head(BATCH, b"", HEAD | {b"content-type": media_type}))
        if number == 3:
            intake.take(request, body)
            continue
        with pytest.raises(Rejection, match="at most 3 events, not 4") as raised:
            intake.take(request, body)
        assert raised.value.status == 413
    assert len(admitter.admitted) == 1


def test_a_format_needs_nothing_but_its_own_class(
    intake: Intake, connection: RecordingConnection, admitter: FakeAdmitter
) -> None:
    class Pages(Format):
        """Pages, separated by commas."""

        name = "pages"
        paths = ("/pages",)
        media_type = "text/x-pages"
        summary = "Pages."
        example = Example(b"a,b")

        def decode(self, body: bytes) -> Decoded:
            pages = body.decode().split(",")
            events = [decode_event(json.dumps({"page": page, "event": "view"}).encode()) for page in pages]
            return Decoded(events, [ord(page) for page in pages])

        def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
            return b"%d %d %b" % (sum(places), len(results), admission.encode())

    form: Format = Pages()
    formats: Formats = {form.media_type.encode(): form}
    for headers in ({}, {b"content-type": b"text/x-pages; x"}):
        request = intake.begin(connection, Head(formats, b"", HEAD | headers))
        intake.take(request, b"a,b")
        documents = [json.loads(entry_document(entry)) for part in request.parts for entry in part.entries]
        assert [document["event_info"]["page"] for document in documents] == ["a", "b"]
        request.admitted(Admission.PENDING)
        assert connection.answers.pop()[2] == b"195 2 pending"
    assert len(admitter.admitted) == 2
    with pytest.raises(Rejection) as raised:
        intake.begin(connection, Head(formats, b"", HEAD | {b"content-type": b"application/json"}))
    assert raised.value.headers == (("Accept", "text/x-pages"),)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (b"application/json", b"[" + b",".join([b"1"] * 500_000) + b"]"),
        (b"application/json", b"[" + b",".join([b"{}"] * 500_000) + b"]"),
        (b"application/json", b'{"events":[' + b",".join([b"{}"] * 500_000) + b"]}"),
        (b"application/json", rb'["\ud83d",' + b",".join([b"{}"] * 90_000) + b"]"),
        (b"application/x-ndjson", b"1\n" * 500_000),
        (b"application/x-ndjson", b"\n" * 2_000_000 + b"1\n" * 4),
    ],
    ids=["numbers", "objects", "in an object", "not JSON", "lines", "empty lines"],
)
def test_far_too_many_bad_events_are_refused_in_good_time(
    intake: Intake, connection: RecordingConnection, media_type: bytes, body: bytes
) -> None:
    request = intake.begin(connection, Head(BATCH, b"", HEAD | {b"content-type": media_type}))
    began_at = time.process_time()
    with pytest.raises(Rejection) as raised:
        intake.take(request, body)
    assert raised.value.status == 413
    assert time.process_time() - began_at < 2
