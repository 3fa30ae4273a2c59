"""From the events of a request to their entries: documents, their `_id`s and indices, made once (invariant 3).

A document is spliced, not built: all documents of a sender share its texts, and all of a moment their times, which are
encoded once; for each event only `log_id` and `event_info` are. The bytes are those that `encode_entry` would make.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from forebay.errors import FieldError, Rejection
from forebay.intake.client_clock import as_datetime, correct
from forebay.intake.formats.event import TOO_DEEP, invalid_event
from forebay.intake.formats.format import Result
from forebay.intake.formats.json_split import is_too_deep
from forebay.intake.month import PREFIX_DIGITS, Months, as_ms, new_log_id
from forebay.intake.senders import Sender
from forebay.model import LOG_ID_BYTES_MAX, NEWLINE, NO_PARAM, Entry, Event, Instant, entry_address, on_one_line
from forebay.pipeline.group import Part
from forebay.telemetry.counters import Counters

BRACE = ord("{")
TIMES = b'}}\n{"@timestamp":%b,"received_at":%b,"log_id":'

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


class Moment(Struct, gc=False):
    """The texts that all events share that arrived at the same time.

    Attributes:
        index: the index of an event whose time is in the month of receipt.
        lead: the text before the `_id` in that index.
        times: the text between `_id` and `log_id` of an event without a timestamp of its own.
    """

    received_at: datetime
    index: str
    lead: bytes
    times: bytes


Made: TypeAlias = tuple[str, bytes, Entry]
"""The index of an event, its `_id` as JSON, and its entry."""


class _Leads(dict[str, bytes]):
    """The text before the `_id`s of each index."""

    def __missing__(self, index: str) -> bytes:
        lead = self[index] = b'{"create":{"_index":%b,"_id":' % _encode(index)
        return lead


class DocumentMaker:
    """Makes entries for one environment; a time before `oldest` does not decide the index.

    `drops_repeated` is for a sink that does not know the `_id`s: there, a `log_id` that a request has twice would be
    two documents. Any other sink sees it.
    """

    def __init__(
        self,
        environment: str,
        oldest: datetime,
        counters: Counters,
        *,
        require_log_id: bool,
        drops_repeated: bool = False,
    ) -> None:
        self._drops_repeated = drops_repeated
        self._months = Months(environment, oldest)
        self._counters = counters
        self._require_log_id = require_log_id
        self._leads = _Leads()
        self._moment = self._begin_moment(_EPOCH)

    def make(
        self,
        events: Iterable[Any],
        sender: Sender,
        received_at: datetime,
        sent_at: Instant | None,
    ) -> tuple[list[Part], list[Result]]:
        """Return the entries of a request's events by their index, and the result of each event, in their order.

        `sent_at` is the time at which all of them were sent, if it is known. An event that was refused, or of which no
        document can be made, has a `Rejection`. The events are changed.
        """
        moment = self._moment
        if moment.received_at != received_at:
            moment = self._moment = self._begin_moment(received_at)
        entries_of: dict[str, list[Entry]] = {}
        results: list[Result] = []
        for event in events:
            if isinstance(event, Rejection):
                results.append(event.without_frames())
                continue
            try:
                index, log_id, entry = self._make_entry(event, moment, sender, sent_at)
            except Rejection as error:
                results.append(error.without_frames())
            else:
                results.append(log_id)
                if index in entries_of:
                    entries_of[index].append(entry)
                else:
                    entries_of[index] = [entry]
        if self._drops_repeated:
            _drop_repeated(entries_of)
        parts = []
        for index, entries in entries_of.items():
            parts.append(Part(index, entries, sum(map(len, entries))))
        return parts, results

    def _begin_moment(self, received_at: datetime) -> Moment:
        index = self._months.find_today(received_at)
        time = _encode(received_at)
        return Moment(received_at, index, self._leads[index], TIMES % (time, time))

    def _make_entry(self, event: Event, moment: Moment, sender: Sender, sent_at: Instant | None) -> Made:
        """Return an event's index, its `log_id` as JSON, and its entry.

        Raises:
            Rejection: 400, its required `log_id` is missing, its `log_id` is too long, its `param` too deep, or a time
                is not valid.
        """
        named = event.log_id or self._new_log_id(moment.received_at)
        log_id = _encode(named)
        if len(log_id) > LOG_ID_BYTES_MAX and len(named.encode()) > LOG_ID_BYTES_MAX:
            raise invalid_event(FieldError("log_id", f"must not be longer than {LOG_ID_BYTES_MAX} bytes"))
        index, lead, times = moment.index, moment.lead, moment.times
        if event.timestamp is not None or named[:PREFIX_DIGITS] not in self._months.prefixes:
            index, lead, times = self._place(event, named, moment, sent_at)
        if event.param is not NO_PARAM:
            param = bytes(event.param)
            if is_too_deep(param):
                raise invalid_event(FieldError("param", TOO_DEEP))
            if param[0] != BRACE:
                # `flat_object` takes objects only.
                event.param = NO_PARAM if param == b"null" else Raw(b'{"value":%b}' % param)
        # The rest of the event is its `event_info`.
        event.log_id = event.timestamp = event.sent_at = None
        info = _encode(event)
        if NEWLINE in info:
            info = on_one_line(info)
        user, devices = sender
        return index, log_id, b"".join((lead, log_id, times, log_id, user, info, devices))

    def _place(self, event: Event, log_id: str, moment: Moment, sent_at: Instant | None) -> tuple[str, bytes, bytes]:
        """Return the index of an event, and the texts before its `_id` and its `log_id`."""
        if event.timestamp is None:
            index = self._months.find(log_id, None, moment.received_at)
            return index, self._leads[index], moment.times
        happened_at = as_datetime(event.timestamp, "timestamp")
        index = self._months.find(log_id, happened_at, moment.received_at)
        corrected = correct(happened_at, event.sent_at if sent_at is None else sent_at, moment.received_at)
        if corrected is None:
            self._counters.uncorrected += 1
            corrected = happened_at
        return index, self._leads[index], TIMES % (_encode(corrected), _encode(moment.received_at))

    def _new_log_id(self, now: datetime) -> str:
        if self._require_log_id:
            raise invalid_event(FieldError("log_id", "is required"))
        return new_log_id(as_ms(now))


def _drop_repeated(entries_of: dict[str, list[Entry]]) -> None:
    """Keep one of the entries that have the same `_id`, whatever their indices."""
    known: set[str] = set()
    for index, entries in entries_of.items():
        kept: dict[str, Entry] = {}
        for entry in entries:
            kept.setdefault(entry_address(entry).log_id, entry)
        entries_of[index] = [entry for log_id, entry in kept.items() if log_id not in known]
        known |= kept.keys()
    for index in [index for index, entries in entries_of.items() if not entries]:
        del entries_of[index]
