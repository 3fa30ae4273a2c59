"""From a request that has arrived whole to its events in the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from forebay.errors import FieldError, Rejection
from forebay.intake import responses
from forebay.intake.documents import DocumentMaker
from forebay.intake.formats.native import check_text, decode_batch, decode_event, decode_unchecked
from forebay.intake.limits import RequestLimits
from forebay.intake.request import EventRequest, Route
from forebay.model import Ack, Admission, Entry, Sender
from forebay.pipeline.pipeline import Admitter
from forebay.problems import field_errors
from forebay.telemetry.counters import Counters
from forebay.tokens import Scope, TokenVerifier

UNSUPPORTED = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
JSON_TYPE = b"application/json"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Intake:
    """Takes requests for the event addresses, and answers each of them once."""

    def __init__(
        self,
        verifier: TokenVerifier,
        maker: DocumentMaker,
        admitter: Admitter,
        ack: Ack,
        limits: RequestLimits,
        counters: Counters,
    ) -> None:
        self._verifier = verifier
        self._maker = maker
        self._admitter = admitter
        self._ack = ack
        self.limits = limits
        self.counters = counters

    def check_head(self, request: EventRequest) -> None:
        """Check the size that the head announces, before the body arrives.

        Raises:
            Rejection: 413 for a body over the limit.
        """
        length = request.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self.limits.body_bytes_max:
            raise self.too_large()

    def too_large(self) -> Rejection:
        """Return the answer to a body over the limit."""
        return Rejection(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {self.limits.body_bytes_max} bytes"
        )

    def take(self, request: EventRequest) -> None:
        """Take a request; it is answered now, or once its events are safe."""
        if request.route is Route.PING:
            request.reply(responses.PONG)
            return
        try:
            self._take(request)
        except Rejection as error:
            self.counters.rejected += 1
            request.reply(responses.rejection(error))

    def _take(self, request: EventRequest) -> None:
        headers = request.headers
        claims = self._verifier.verify(headers.get(b"authorization"), Scope.WRITE)
        ack = _ack(request.query) if request.query else None
        _check_media(headers)
        # Windows writes it, and a reader may ignore it (RFC 8259, section 8.1).
        body = bytes(request.body).removeprefix(BYTE_ORDER_MARK)
        sender = _sender(claims.user_id, headers)
        if request.route is Route.BATCH:
            self._make_batch(request, body, sender)
        else:
            check_text(body)
            request.log_id, entry = self._maker.make(decode_event(body), sender, datetime.now(UTC), None)
            request.entries = [entry]
            request.entry_bytes = len(entry)
        # Only the entries are needed while a commit is awaited.
        request.body = b""
        if request.entries:
            self._admitter.admit(request, ack or self._ack)
        else:
            request.admitted(Admission.CREATED)

    def _make_batch(self, request: EventRequest, body: bytes, sender: Sender) -> None:
        batch = decode_batch(body)
        if len(batch.events) > self.limits.batch_events_max:
            detail = f"a batch has at most {self.limits.batch_events_max} events, not {len(batch.events)}"
            raise Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        decode = decode_event if batch.is_checked else decode_unchecked
        received_at = datetime.now(UTC)
        results: list[dict[str, Any]] = []
        entries: list[Entry] = []
        for index, raw in enumerate(batch.events):
            try:
                log_id, entry = self._maker.make(decode(raw), sender, received_at, batch.sent_at)
            except Rejection as error:
                results.append({"index": index, "status": "rejected", "error": _explain(error)})
                continue
            entries.append(entry)
            results.append({"index": index, "log_id": log_id})
        request.entries, request.entry_bytes, request.results = entries, sum(map(len, entries)), results
        self.counters.rejected += len(results) - len(entries)


def _explain(error: Rejection) -> dict[str, Any]:
    explained: dict[str, Any] = {"detail": error.detail}
    if error.errors:
        explained["errors"] = field_errors(error.errors)
    return explained


def _ack(query: bytes) -> Ack | None:
    named = parse_qs(query.decode("latin-1")).get("ack")
    if not named:
        return None
    try:
        return Ack(named[-1])
    except ValueError:
        allowed = " or ".join(Ack)
        error = FieldError("ack", f"must be {allowed}")
        raise Rejection(HTTPStatus.BAD_REQUEST, "the query is not valid", (error,)) from None


def _check_media(headers: Mapping[bytes, bytes]) -> None:
    media = headers.get(b"content-type")
    # Without a content type the body is JSON: nothing else is taken here.
    if media is not None and media != JSON_TYPE:
        essence = media.partition(b";")[0].strip().lower()
        if essence != JSON_TYPE:
            detail = "the content type must be application/json"
            raise Rejection(UNSUPPORTED, detail, headers=(("Accept", "application/json"),))
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise Rejection(UNSUPPORTED, "the body must not be compressed", headers=(("Accept-Encoding", "identity"),))


def _sender(user_id: str, headers: Mapping[bytes, bytes]) -> Sender:
    get = headers.get
    return Sender(
        user_id,
        _text(get(b"device-uuid")),
        _text(get(b"app-version")),
        _text(get(b"os-version")),
        _text(get(b"user-agent")),
    )


def _text(value: bytes | None) -> str | None:
    if not value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
