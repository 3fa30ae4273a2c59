"""The denial list as it is in force in a process, from within a second or two of a command's change on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from forebay.denials.entries import Denial, Kind, Stamp, decode_entries, read_bytes, read_stamp
from forebay.denials.networks import Network, Networks, read_network
from forebay.errors import SettingsError
from forebay.telemetry.counters import Counters

log = structlog.get_logger("forebay.denials")

LOOK_S = 1.0
NEVER = 0.0
"""The end of an entry that is not in the list."""


class InForce(NamedTuple):
    """The entries, each with the time at which it ends in seconds since 1970."""

    tokens: Mapping[str, float]
    subs: Mapping[str, float]
    devices: Mapping[bytes, float]
    networks: Networks
    entries: int


class Denials:
    """Answers whether a sender is shut out.

    A list that cannot be read any more, or is gone, changes nothing: the former one stays in force.

    Attributes:
        version: another number after each change.
    """

    def __init__(self, path: Path, counters: Counters) -> None:
        """Read the list; a file that is missing is an empty one.

        Raises:
            SettingsError: it cannot be read, or is damaged.
        """
        self.version = 0
        self._path = path
        self._counters = counters
        self._seen: Stamp | None = None
        self._damage = ""
        self._told = ""
        self._in_force = _index([])
        self._set(self._look())

    def is_revoked(self, token_ids: Iterable[str], user_id: str) -> bool:
        """Return whether a token, by one of its ids, or every token of its user is revoked."""
        now = time.time()
        tokens, subs = self._in_force.tokens, self._in_force.subs
        if any(now < tokens.get(token_id, NEVER) for token_id in token_ids):
            kind = Kind.TOKEN
        elif now < subs.get(user_id, NEVER):
            kind = Kind.SUB
        else:
            return False
        self._counters.denied[kind.value] += 1
        return True

    def is_denied(self, device: bytes | None, address: str | None) -> bool:
        """Return whether the device or the address of a client is shut out."""
        _, _, devices, networks, entries = self._in_force
        if not entries:
            return False
        now = time.time()
        if device is not None and now < devices.get(device, NEVER):
            kind = Kind.DEVICE
        elif address is not None and networks.contain(address, now):
            kind = Kind.ADDRESS
        else:
            return False
        self._counters.denied[kind.value] += 1
        return True

    async def watch(self) -> None:
        """Look for a change each second, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                # In a thread: to read a full list takes longer than an answer may.
                self._set(await asyncio.to_thread(self._look))
                self._told = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed
                self._counters.denial_failures += 1
                self._tell(str(error) or type(error).__name__)

    def _look(self) -> InForce | None:
        """Return the list if it has changed."""
        stamp = read_stamp(self._path)
        if stamp != self._seen:
            data = read_bytes(self._path)
            # A file that could not be read is tried again; one that is damaged stays so until it changes.
            self._seen, self._damage = stamp, ""
            try:
                return _index(decode_entries(data, self._path))
            except SettingsError as error:
                self._damage = str(error)
        if self._damage:
            raise SettingsError(self._damage)
        return None

    def _set(self, in_force: InForce | None) -> None:
        if in_force is not None:
            self._in_force = in_force
            self._counters.denials = in_force.entries
            self.version += 1
            log.info("denials_read", entries=in_force.entries)

    def _tell(self, failure: str) -> None:
        if failure != self._told:
            self._told = failure
            log.error("denials_unreadable", cause=failure, entries_kept=self._in_force.entries)


def _index(entries: Collection[Denial]) -> InForce:
    tokens: dict[str, float] = {}
    subs: dict[str, float] = {}
    devices: dict[bytes, float] = {}
    networks: list[tuple[Network, float]] = []
    for entry in entries:
        kind, value = entry.kind, entry.value
        end = math.inf if entry.until is None else entry.until.timestamp()
        if kind is Kind.TOKEN:
            tokens[value] = end
        elif kind is Kind.SUB:
            subs[value] = end
        elif kind is Kind.DEVICE:
            devices |= dict.fromkeys(_as_sent(value), end)
        else:
            networks.append((read_network(value), end))
    return InForce(tokens, subs, devices, Networks(networks), len(entries))


def _as_sent(device: str) -> set[bytes]:
    """Return the bytes that documents show as this text: UTF-8, or Latin-1 if they are not UTF-8."""
    sent = {device.encode()}
    with contextlib.suppress(UnicodeEncodeError):
        sent.add(device.encode("latin-1"))
    return sent
