"""`POST /v1/logs`: log records of OpenTelemetry (OTLP/HTTP), in protobuf and in JSON.

OTLP gives records no ids. So a record gets the digest of the whole request and its number in it: a request that is sent
again makes no second document, and equal records in one request stay two.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Raw

from forebay.errors import FieldError, Rejection
from forebay.intake.answers import Answer, head, ok_head
from forebay.intake.formats import otlp_json
from forebay.intake.formats.event import TOO_DEEP, invalid_event
from forebay.intake.formats.format import Decoded, Example, Format, Incoming, Result
from forebay.intake.formats.otlp_mapping import Fields, ScopeLogs, make_event
from forebay.intake.limits import check_copies
from forebay.intake.refusals import Lines, keep_answers
from forebay.model import Admission

DIGEST_DIGITS = 32

MORE = 0x80
"""The bit of a byte behind which an integer of protobuf goes on, seven bits a byte."""

BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
"""The type of the details about the fields at fault (googleapis, `google/rpc/error_details.proto`)."""


class OtlpJson(Format):
    """Logs in OTLP's JSON encoding."""

    name = "otlp"
    paths = ("/v1/logs",)
    media_type = "application/json"
    summary = "Log records of OpenTelemetry (OTLP/HTTP), as JSON or protobuf."
    example = Example(
        b'{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},'
        b'"scopeLogs":[{"logRecords":[{"eventName":"click","body":{"stringValue":"buy"}}]}]}]}'
    )

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400, it is no request of this kind; 413, its documents would be too large.
        """
        return _decode(body, *otlp_json.read_logs(body), otlp_json.read_record)

    def refuse(self, error: Rejection) -> Answer:
        """Return the answer that refuses a request, with a `google.rpc.Status`."""
        return _refuse_in_json(*_words(error))

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return an `ExportLogsServiceResponse`.

        Raises:
            Rejection: no record was taken, and there were some.
        """
        del admission
        rejected, message = _count_refused(places, results)
        if not rejected:
            return b"{}"
        # proto3 writes integers of 64 bits as texts.
        return msgspec.json.encode({"partialSuccess": {"rejectedLogRecords": str(rejected), "errorMessage": message}})


class OtlpProtobuf(Format):
    """Logs in OTLP's protobuf encoding."""

    name = OtlpJson.name
    paths = OtlpJson.paths
    media_type = "application/x-protobuf"
    summary = OtlpJson.summary
    ok_head = ok_head(media_type)
    example = Example(b"\n,\n\x18\n\x16\n\x0cservice.name\x12\x06\n\x04shop\x12\x10\x12\x0e*\x05\n\x03buyb\x05click")

    def decode(self, body: bytes) -> Decoded:
        """Return the events.

        Raises:
            Rejection: 400, it is no request of this kind; 413, its documents would be too large.
        """
        from forebay.intake.formats import otlp_protobuf  # noqa: PLC0415 - protobuf takes 2 MB

        return _decode(body, *otlp_protobuf.read_logs(body), otlp_protobuf.read_record)

    def refuse(self, error: Rejection) -> Answer:
        """Return the answer that refuses a request, with a `google.rpc.Status`."""
        return _refuse_in_protobuf(*_words(error))

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return an `ExportLogsServiceResponse`.

        Raises:
            Rejection: no record was taken, and there were some.
        """
        del admission
        rejected, message = _count_refused(places, results)
        if not rejected:
            return b""
        return _field(1, b"\x08%b%b" % (_varint(rejected), _field(2, _utf8(message))))


def _decode(
    body: bytes, records: int, scopes: Iterable[ScopeLogs], read_record: Callable[[bytes | Raw], Fields]
) -> Decoded:
    digest = hashlib.sha256(body).hexdigest()[:DIGEST_DIGITS]
    return Decoded(_make_events(scopes, read_record, digest), range(records), is_foreign=True)


def _make_events(
    scopes: Iterable[ScopeLogs], read_record: Callable[[bytes | Raw], Fields], digest: str
) -> Iterator[Incoming]:
    first = copies_bytes = 0
    for shared, records in scopes:
        if isinstance(shared, Rejection):
            yield from itertools.repeat(shared, len(records))
        else:
            copies_bytes += shared.copied_bytes * len(records)
            check_copies(copies_bytes, "resources and scopes")
            for number, record in enumerate(records, first):
                try:
                    yield make_event(read_record(record), shared, f"{digest}-{number}")
                except Rejection as error:
                    yield error
                except RecursionError:
                    yield invalid_event(FieldError("logRecords", TOO_DEEP))
        first += len(records)


def _count_refused(places: Sequence[int], results: Sequence[Result]) -> tuple[int, str]:
    """Return how many records were refused, and a message that names the first.

    Raises:
        Rejection: all of them.
    """
    refused = [(place, result) for place, result in zip(places, results, strict=True) if isinstance(result, Rejection)]
    if not refused:
        return 0, ""
    place, first = refused[0]
    reasons = "; ".join(f"{error.field} {error.reason}" for error in first.errors)
    message = f"{len(refused)} of {len(results)} log records refused; number {place}, from 0: {first.detail}"
    if reasons:
        message = f"{message}: {reasons}"
    if len(refused) == len(results):
        raise Rejection(HTTPStatus.BAD_REQUEST, message, first.errors)
    return len(refused), message


def _words(error: Rejection) -> tuple[int, str, tuple[FieldError, ...], Lines]:
    """Return status, detail, fields and header lines of a refusal, in the statuses that this protocol knows.

    Of those that ask a client to send again it has 429, 502, 503 and 504 alone.
    """
    if error.status == HTTPStatus.REQUEST_TIMEOUT:
        return HTTPStatus.SERVICE_UNAVAILABLE, error.detail, error.errors, (("Retry-After", "1"),)
    return error.status, error.detail, error.errors, error.headers


@keep_answers
def _refuse_in_json(status: int, detail: str, errors: tuple[FieldError, ...], headers: Lines) -> Answer:
    body: dict[str, object] = {"message": detail}
    if errors:
        violations = [{"field": error.field, "description": error.reason} for error in errors]
        body["details"] = [{"@type": BAD_REQUEST, "fieldViolations": violations}]
    text = msgspec.json.encode(body)
    return status, head(status, OtlpJson.media_type, len(text), headers), text


@keep_answers
def _refuse_in_protobuf(status: int, detail: str, errors: tuple[FieldError, ...], headers: Lines) -> Answer:
    body = _field(2, _utf8(detail))
    if errors:
        violations = [_field(1, _field(1, _utf8(error.field)) + _field(2, _utf8(error.reason))) for error in errors]
        body += _field(3, _field(1, BAD_REQUEST.encode()) + _field(2, b"".join(violations)))
    return status, head(status, OtlpProtobuf.media_type, len(body), headers), body


def _field(number: int, value: bytes) -> bytes:
    """Return a field of a protobuf message that has bytes, a text or a message."""
    return b"%c%b%b" % (number << 3 | 2, _varint(len(value)), value)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= MORE:
        digits.append(number % MORE | MORE)
        number //= MORE
    digits.append(number)
    return bytes(digits)


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
