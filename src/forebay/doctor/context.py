"""Everything that a check may read; the sink and OpenSearch are asked once for all checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from forebay.doctor.opensearch.answers import Answers
from forebay.settings import Settings
from forebay.sinks.months import index_of
from forebay.sinks.port import SinkCheck


@dataclass(frozen=True, kw_only=True)
class Context:
    """The data for the checks.

    Attributes:
        settings: those of the server, as they are in this folder.
        sink: returns the sink's own check; waits for it.
        answers: returns the answers of OpenSearch; waits for them, and raises `NotAsked` if there is none to ask.
        spools: the spools that are there.
        spool: the one to check, for a check of single spools.
        now: the time of the checks, in UTC.
        is_full: whether to check everything to its end, however long that takes.
    """

    settings: Settings
    sink: Callable[[], SinkCheck]
    answers: Callable[[], Answers]
    spools: tuple[Path, ...] = ()
    spool: Path = Path()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_full: bool = False

    def index(self, months: int = 0) -> str:
        """Return the index of the month that lies so many months from now."""
        return index_of(self.settings.server_environment, self.now, months)
