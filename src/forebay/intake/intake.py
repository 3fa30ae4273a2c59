"""The hot path: from a whole request to events in the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from forebay.errors import FieldError, Rejection
from forebay.intake import replies
from forebay.intake.documents import DocumentMaker
from forebay.intake.exchange import Exchange
from forebay.intake.formats.native import check_text, decode_batch, decode_event, decode_unchecked
from forebay.intake.targets import Target
from forebay.model import Ack, Admission, Entry, Sender
from forebay.pipeline.pipeline import Admitter
from forebay.problems import field_errors
from forebay.telemetry.counters import Counters
from forebay.tokens import Scope, TokenVerifier

JSON_TYPE = b"application/json"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class IntakeLimits(NamedTuple):
    """What one request may bring."""

    body_bytes_max: int
    batch_events_max: int


class Intake:
    """Takes requests for the event addresses and answers each of them once."""

    def __init__(
        self,
        verifier: TokenVerifier,
        maker: DocumentMaker,
        admitter: Admitter,
        ack: Ack,
        limits: IntakeLimits,
        counters: Counters,
    ) -> None:
        self._verifier = verifier
        self._maker = maker
        self._admitter = admitter
        self._ack = ack
        self.limits = limits
        self.counters = counters

    def check_head(self, exchange: Exchange) -> None:
        """Look at what the head announces, before any of the body is taken.

        Raises:
            Rejection: 413 for a body over the limit.
        """
        length = exchange.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self.limits.body_bytes_max:
            raise self.too_large()

    def too_large(self) -> Rejection:
        """Return the answer to a body over the limit."""
        return Rejection(413, f"the body is larger than {self.limits.body_bytes_max} bytes")

    def take(self, exchange: Exchange) -> None:
        """Take a request that has arrived whole; it is answered now, or when its events are safe."""
        if exchange.target is Target.PING:
            exchange.reply(replies.PONG)
            return
        try:
            self._take(exchange)
        except Rejection as error:
            self.counters.rejected += 1
            exchange.reply(replies.rejection(error))

    def _take(self, exchange: Exchange) -> None:
        headers = exchange.headers
        claims = self._verifier.verify(headers.get(b"authorization"), Scope.WRITE)
        ack = _ack(exchange.query) if exchange.query else None
        _check_media(headers)
        # A reader may ignore the mark (RFC 8259, section 8.1), and Windows writes it.
        body = bytes(exchange.body).removeprefix(BYTE_ORDER_MARK)
        sender = _sender(claims.user_id, headers)
        if exchange.target is Target.BATCH:
            self._make_batch(exchange, body, sender)
        else:
            check_text(body)
            exchange.log_id, entry = self._maker.make(decode_event(body), sender, datetime.now(UTC), None)
            exchange.entries = [entry]
            exchange.entry_bytes = len(entry)
        # The events are made; while a commit is awaited nothing else of the request is needed.
        exchange.body = b""
        if exchange.entries:
            self._admitter.admit(exchange, ack or self._ack)
        else:
            exchange.admitted(Admission.CREATED)

    def _make_batch(self, exchange: Exchange, body: bytes, sender: Sender) -> None:
        batch = decode_batch(body)
        if len(batch.events) > self.limits.batch_events_max:
            raise Rejection(413, f"a batch has at most {self.limits.batch_events_max} events, not {len(batch.events)}")
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
        exchange.entries, exchange.entry_bytes, exchange.results = entries, sum(map(len, entries)), results
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
        raise Rejection(400, "the query is not valid", (FieldError("ack", f"must be {allowed}"),)) from None


def _check_media(headers: Mapping[bytes, bytes]) -> None:
    media = headers.get(b"content-type")
    # A client that names no type means JSON: there is nothing else to send here.
    if media is not None and media != JSON_TYPE:
        essence = media.partition(b";")[0].strip().lower()
        if essence != JSON_TYPE:
            raise Rejection(415, "the content type must be application/json", headers=(("Accept", "application/json"),))
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise Rejection(415, "the body must not be compressed", headers=(("Accept-Encoding", "identity"),))


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
