"""The denial list as a file: JSON lines, each one a token, a user, a device, an address or a network."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from forebay.denials.networks import read_network
from forebay.errors import SettingsError

ENTRIES_MAX = 100_000
FILE_BYTES_MAX = 64 * 1024 * 1024
"""Enough for every entry to be twice as long as a usual one with its reason."""

Time = Annotated[datetime, Meta(tz=True)]


class Kind(enum.StrEnum):
    """The kind of sender that an entry shuts out."""

    TOKEN = "token"  # noqa: S105 - no password, but the name of the kind
    SUB = "sub"
    DEVICE = "device"
    ADDRESS = "address"


class Denial(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One entry.

    Attributes:
        kind: the meaning of `value`.
        value: a token's `jti` or its digest; a `sub`; a device; an address or a network.
        reason: an operator's own words.
        at: the time at which it was added.
        until: the time at which it ends; None: it stays until it is removed.
    """

    kind: Kind
    value: Annotated[str, Meta(min_length=1)]
    reason: str
    at: Time
    until: Time | None = None

    def is_over(self, now: datetime) -> bool:
        """Return whether it has ended."""
        return self.until is not None and self.until <= now


class Stamp(NamedTuple):
    """Tells one state of a file from another. Whoever writes the list makes each `mtime_ns` later than the last."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_decode = msgspec.json.Decoder(Denial).decode
_encode = msgspec.json.Encoder().encode


def read_stamp(path: Path) -> Stamp | None:
    """Return the state of a file, or None if there is none.

    Raises:
        SettingsError: the system does not tell.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_bytes(path: Path) -> bytes:
    """Return the content of the file.

    Raises:
        SettingsError: it cannot be read, or is larger than the list may be.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > FILE_BYTES_MAX:
                raise _unreadable(path, f"it is larger than {FILE_BYTES_MAX} bytes")
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def decode_entries(data: bytes, path: Path) -> list[Denial]:
    """Return the entries of a file's content.

    Raises:
        SettingsError: one of its lines is no entry, or there are too many.
    """
    lines = data.splitlines()
    if len(lines) > ENTRIES_MAX:
        raise _unreadable(path, f"it has more than {ENTRIES_MAX} lines")
    entries = []
    # One by one: the thread that reads gives way to the event loop between two lines, and not within a call.
    for number, line in enumerate(lines, 1):
        try:
            entry = _decode(line)
            if entry.kind is Kind.ADDRESS:
                read_network(entry.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            reason = str(error).replace("`", "")
            raise _unreadable(
                path, f"line {number} is no entry of it ({reason}); correct or remove that line"
            ) from None
        entries.append(entry)
    return entries


def encode_entries(entries: Iterable[Denial]) -> bytes:
    """Return the content of a file with these entries."""
    return b"".join(_encode(entry) + b"\n" for entry in entries)


def read_entries(path: Path) -> list[Denial]:
    """Return the entries of the file, none if there is no file.

    Raises:
        SettingsError: it cannot be read, or is damaged.
    """
    return [] if read_stamp(path) is None else decode_entries(read_bytes(path), path)


def _unreadable(path: Path, reason: str) -> SettingsError:
    return SettingsError(f"DATABASE_URL: the denial list {path} beside it cannot be read: {reason}")
