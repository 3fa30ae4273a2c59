"""Entries of the formats of others, whose events name their own users, devices and indices."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from forebay.errors import FieldError
from forebay.intake.documents import DEVICES_END, SENDER_FIELDS, USER, USER_END, DocumentMaker, Made, Moment, Sender
from forebay.intake.formats.event import invalid_event
from forebay.intake.formats.format import ForeignEvent, OwnDocument
from forebay.model import LOG_ID_BYTES_MAX, Event, Instant
from forebay.own_indices import RECEIPT

_ID = b'"_id":'
_encode = msgspec.json.Encoder().encode


class ForeignEntries:
    """Makes entries of events that are more than native ones, with the means of a `DocumentMaker`."""

    def __init__(self, maker: DocumentMaker) -> None:
        self._make_native = maker.make_entry
        self._leads = maker.leads

    def make_entry(
        self, event: Event | ForeignEvent | OwnDocument, moment: Moment, sender: Sender, sent_at: Instant | None
    ) -> Made:
        """Return an event's index, its `_id` as JSON, and its entry.

        Raises:
            Rejection: as by `DocumentMaker.make_entry`.
        """
        if isinstance(event, ForeignEvent):
            index, log_id, entry = self._make_native(event.event, moment, _name_sender(sender, event), sent_at)
            if not event.document_id:
                return index, log_id, entry
            document_id = _encode_id(event.document_id)
            start = entry.index(_ID) + len(_ID)
            return index, document_id, entry[:start] + document_id + entry[start + len(log_id) :]
        if isinstance(event, OwnDocument):
            document_id = _encode_id(event.document_id)
            document = _add_receipt(event, moment, sender)
            return event.index, document_id, b"%b%b}}\n%b" % (self._leads[event.index], document_id, document)
        return self._make_native(event, moment, sender, sent_at)


def _encode_id(document_id: str) -> bytes:
    if len(document_id.encode()) > LOG_ID_BYTES_MAX:
        raise invalid_event(FieldError("id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"))
    return _encode(document_id)


def _add_receipt(event: OwnDocument, moment: Moment, sender: Sender) -> bytes:
    """Return a document with its newline, and in a field of its own the time of receipt, the token's user and device.

    A field beside those of the document could be one of them.
    """
    user, devices = sender
    received_at = _encode(moment.received_at)
    fields = [] if event.document == b"{}" else [event.document[1:-1]]
    if event.time_field:
        fields.append(b"%b:%b" % (_encode(event.time_field), received_at))
    source = user.removeprefix(USER).removesuffix(USER_END)
    fields.append(b'"%b":{"received_at":%b,"source":%b%b' % (RECEIPT.encode(), received_at, source, devices[:-1]))
    return b"{%b}\n" % b",".join(fields)


def _name_sender(sender: Sender, event: ForeignEvent) -> Sender:
    """Return a sender with the user and the devices that an event names."""
    user, devices = sender
    if event.user_id:
        # The token's user is then the one who passes the event on.
        user = b',"user_id":%b,"source":%b' % (_encode(event.user_id), user.removeprefix(USER))
    if event.sender:
        named = {**_read_devices(devices), **event.sender}
        lines = [b',"%b":%b' % (field.encode(), _encode(named[field])) for field in SENDER_FIELDS if field in named]
        devices = b"".join([*lines, DEVICES_END])
    return user, devices


@lru_cache(maxsize=1000)
def _read_devices(devices: bytes) -> Mapping[str, Any]:
    return msgspec.json.decode(b"{%b" % devices[1:], type=dict[str, Any]) if devices != DEVICES_END else {}
