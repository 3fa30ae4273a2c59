"""Entries of the formats of others, whose events name their own users, devices and indices."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus

import msgspec

from forebay.denials.denials import Denials
from forebay.errors import FieldError, Rejection
from forebay.intake.documents import DocumentMaker, Made, Moment
from forebay.intake.formats.event import invalid_event
from forebay.intake.formats.format import ForeignEvent, OwnDocument
from forebay.intake.senders import Sender, encode_receipt, name_sender
from forebay.model import LOG_ID_BYTES_MAX, Event, Instant
from forebay.own_indices import RECEIPT
from forebay.telemetry.counters import Counters

_ID = b'"_id":'
_encode = msgspec.json.Encoder().encode


class ForeignDocumentMaker(DocumentMaker):
    """Makes entries of events that are more than native ones.

    Attributes:
        denials: the list that shuts out users and devices, also those that an event names.
    """

    denials: Denials | None = None

    def _make_entry(
        self, event: Event | ForeignEvent | OwnDocument, moment: Moment, sender: Sender, sent_at: Instant | None
    ) -> Made:
        if isinstance(event, ForeignEvent):
            self._check_denials(event)
            named = name_sender(sender, event.user_id, event.sender)
            index, log_id, entry = super()._make_entry(event.event, moment, named, sent_at)
            if not event.document_id:
                return index, log_id, entry
            document_id = _encode_id(event.document_id)
            start = entry.index(_ID) + len(_ID)
            return index, document_id, entry[:start] + document_id + entry[start + len(log_id) :]
        if isinstance(event, OwnDocument):
            document_id = _encode_id(event.document_id)
            document = _add_receipt(event, moment, sender)
            return event.index, document_id, b"%b%b}}\n%b\n" % (self._leads[event.index], document_id, document)
        return super()._make_entry(event, moment, sender, sent_at)

    def _check_denials(self, event: ForeignEvent) -> None:
        if self.denials is None:
            return
        device = event.sender.get("device_uuid", "")
        if self.denials.is_denied(device.encode() or None, None):
            raise Rejection(HTTPStatus.FORBIDDEN, "the device is shut out")
        if event.user_id and self.denials.is_revoked((), event.user_id):
            raise Rejection(HTTPStatus.FORBIDDEN, "the user is shut out")


def document_makers(
    environment: str,
    oldest: datetime,
    counters: Counters,
    *,
    require_log_id: bool,
    drops_repeated: bool = False,
    denials: Denials | None = None,
) -> tuple[DocumentMaker, DocumentMaker]:
    """Return the maker for native events, and the one for all."""
    rules = {"require_log_id": require_log_id, "drops_repeated": drops_repeated}
    foreign = ForeignDocumentMaker(environment, oldest, counters, **rules)
    foreign.denials = denials
    return DocumentMaker(environment, oldest, counters, **rules), foreign


def _add_receipt(event: OwnDocument, moment: Moment, sender: Sender) -> bytes:
    """Return a document with the time of receipt and the sender, in one field: of several one might be there."""
    received_at = _encode(moment.received_at)
    fields = [] if event.document == b"{}" else [event.document[1:-1]]
    if event.time_field:
        fields.append(b"%b:%b" % (_encode(event.time_field), received_at))
    fields.append(b"%b:%b" % (_encode(RECEIPT), encode_receipt(sender, received_at)))
    return b"{%b}" % b",".join(fields)


def _encode_id(document_id: str) -> bytes:
    if len(document_id.encode()) > LOG_ID_BYTES_MAX:
        raise invalid_event(FieldError("id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"))
    return _encode(document_id)
