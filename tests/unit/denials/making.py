"""Makes entries and files of the denial list."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from forebay.denials.entries import Denial, Kind, encode_entries

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Files(NamedTuple):
    """The paths of a spool's database and of the list beside it."""

    database: Path
    denials: Path

    def write(self, *entries: Denial) -> None:
        """Put a list in place as commands do, in another file than before."""
        new = self.denials.with_name("new")
        new.write_bytes(encode_entries(entries))
        new.replace(self.denials)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.denials.read_text(encoding="utf-8").splitlines()]

    def values(self) -> list[str]:
        return [line["value"] for line in self.read()]


def denial(kind: Kind, value: str, until: datetime | None = None, reason: str = "") -> Denial:
    return Denial(kind, value, reason, AT, until)
