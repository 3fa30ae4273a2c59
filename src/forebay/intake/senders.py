"""Who sends, in the words of a document, encoded once for all events of a head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

_encode = msgspec.json.Encoder().encode

Sender: TypeAlias = tuple[bytes, bytes]
"""Who sends: the text between `log_id` and `event_info` of a document, and that behind `event_info`, to the end."""

USER = b',"user_id":'
USER_END = b',"event_info":'
DEVICES_END = b"}\n"
SENDER_FIELDS = ("device_uuid", "app_version", "os_version", "user_agent", "client_address")


def encode_sender(user_id: str, *headers: bytes | None) -> Sender:
    """Return a sender, from the token's `sub` and the values of `SENDER_FIELDS`, as they came and as far as known."""
    named = zip(SENDER_FIELDS, headers, strict=False)
    devices = [b',"%b":%b' % (name.encode(), _encode(_text(value))) for name, value in named if value]
    return USER + _encode(user_id) + USER_END, b"".join([*devices, DEVICES_END])


def count_bytes(sender: Sender) -> int:
    """Return the bytes of a sender, of which each event has a copy."""
    return sum(map(len, sender))


def name_sender(sender: Sender, user_id: str, named: Mapping[str, str]) -> Sender:
    """Return a sender with the user and the values of `SENDER_FIELDS` that an event names itself, if it names any."""
    user, devices = sender
    if user_id:
        # The token's user is then the one who passes the event on.
        user = b',"user_id":%b,"source":%b' % (_encode(user_id), user.removeprefix(USER))
    if named:
        all_named = {**_read_devices(devices), **named}
        lines = [
            b',"%b":%b' % (field.encode(), _encode(all_named[field])) for field in SENDER_FIELDS if field in all_named
        ]
        devices = b"".join([*lines, DEVICES_END])
    return user, devices


def encode_receipt(sender: Sender, received_at: bytes) -> bytes:
    """Return the JSON object that names a time of receipt, the token's user as the source, and his device."""
    user, devices = sender
    source = user.removeprefix(USER).removesuffix(USER_END)
    return b'{"received_at":%b,"source":%b%b' % (received_at, source, devices[:-1])


# The events of a request come one after the other, and have the same. Many would be as large as many heads.
@lru_cache(maxsize=1)
def _read_devices(devices: bytes) -> Mapping[str, Any]:
    return msgspec.json.decode(b"{%b" % devices[1:], type=dict[str, Any]) if devices != DEVICES_END else {}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
