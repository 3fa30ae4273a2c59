"""The state of one process at one moment, and of the whole server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import GenericAlias
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import Struct
from prometheus_client import ProcessCollector

from forebay.pipeline.pipeline import State
from forebay.telemetry.counters import Counters

PROCESS = ProcessCollector(registry=None)
"""Memory, processor time and descriptors of this process, under Prometheus's own names."""


class Snapshot(Struct):
    """The state of one process.

    Attributes:
        number: the number of the worker and of its spool, from 1.
        process: its memory, processor time and descriptors, by the name of the sample.
        stopping: whether it takes no more events because it is about to end.
    """

    number: int
    counters: Counters
    state: State
    process: dict[str, float]
    stopping: bool


class ServerSnapshot(NamedTuple):
    """All processes of the server.

    Attributes:
        workers: the number of workers that should take events.
        snapshots: those of the processes that answered, by number; one beyond `workers` empties an orphan.
        left_spools: the reasons why orphans are not emptied, one line each.
        is_supervised: whether there is a supervisor, and so may be several processes.
    """

    workers: int
    snapshots: Mapping[int, Snapshot]
    left_spools: tuple[str, ...] = ()
    is_supervised: bool = False

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the workers that did not answer."""
        return [number for number in range(1, self.workers + 1) if number not in self.snapshots]

    @property
    def answered(self) -> int:
        """Return the number of workers that answered."""
        return self.workers - len(self.missing)


def measure_process() -> dict[str, float]:
    """Return the figures that the system has of this process; none if it has no /proc."""
    return {sample.name: sample.value for family in PROCESS.collect() for sample in family.samples}


def _decode_counter(kind: Any, value: Any) -> Any:
    """Return a `Counter`, which msgspec can write as a mapping and cannot read."""
    return Counter(msgspec.convert(value, GenericAlias(dict, (*get_args(kind), int))))


encode_snapshot = msgspec.msgpack.Encoder().encode
decode_snapshot = msgspec.msgpack.Decoder(Snapshot, dec_hook=_decode_counter).decode
