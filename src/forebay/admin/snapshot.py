"""The state of one process at one moment, and that of the whole server."""

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
        slot: its number among the workers, from 1.
        process: its memory, processor time and descriptors, by the name of the sample.
        left_spools: why spools without an owner are left where they are, one line each.
        stopping: whether it takes no more events because it is about to end.
    """

    slot: int
    counters: Counters
    state: State
    process: dict[str, float]
    left_spools: list[str]
    stopping: bool


class ServerSnapshot(NamedTuple):
    """The number of workers that there should be, and a snapshot of each that answered, by its slot."""

    workers: int
    snapshots: Mapping[int, Snapshot]

    @property
    def missing(self) -> list[int]:
        """Return the slots of the workers that did not answer."""
        return [slot for slot in range(1, self.workers + 1) if slot not in self.snapshots]


def measure_process() -> dict[str, float]:
    """Return the figures that the system has of this process; none if it has no /proc."""
    return {sample.name: sample.value for family in PROCESS.collect() for sample in family.samples}


def _decode_counter(kind: Any, value: Any) -> Any:
    """Make a `Counter`, which msgspec does not know, from the mapping as which it is written."""
    return Counter(msgspec.convert(value, GenericAlias(dict, (*get_args(kind), int))))


encode_snapshot = msgspec.msgpack.Encoder().encode
decode_snapshot = msgspec.msgpack.Decoder(Snapshot, dec_hook=_decode_counter).decode
