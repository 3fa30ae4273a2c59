"""The spool's SQL, read from the files beside this one."""

from __future__ import annotations

import re
from importlib import resources

_FOLDER = resources.files("forebay.spool")

SCHEMA = _FOLDER.joinpath("schema.sql").read_text(encoding="utf-8")


def _parse(text: str) -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


SQL = _parse(_FOLDER.joinpath("statements.sql").read_text(encoding="utf-8"))
"""Statement by name."""
