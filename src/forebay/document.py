"""A document as a record, for commands that edit and show one; intake splices the same bytes."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from forebay.model import Address, Entry, on_one_line

_encode = msgspec.json.Encoder().encode


class EventInfo(Struct, gc=False, omit_defaults=True):
    """The part of a document that the client wrote."""

    page: str
    event: str
    label: str | None = None
    target: str | None = None
    section: str | None = None
    param: Raw | UnsetType = UNSET
    extra: dict[str, Raw] | UnsetType = UNSET


class Document(Struct, gc=False, omit_defaults=True):
    """An event as the sink stores it."""

    timestamp: datetime = msgspec.field(name="@timestamp")
    received_at: datetime
    log_id: str
    user_id: str
    event_info: EventInfo
    device_uuid: str | None = None
    app_version: str | None = None
    os_version: str | None = None
    user_agent: str | None = None
    client_address: str | None = None
    source: str | None = None


def encode_entry(address: Address, document: Document) -> Entry:
    """Make the entry of a document: the `create` action, and the document on one line."""
    return b'{"create":%b}\n%b\n' % (_encode(address), on_one_line(_encode(document)))
