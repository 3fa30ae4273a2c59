"""The spool's SQL, read from the files beside this one."""

from __future__ import annotations

import re
from importlib import resources

_FOLDER = resources.files("forebay.spool")


def _parse(text: str) -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


SQL = _parse(_FOLDER.joinpath("statements.sql").read_text(encoding="utf-8"))
"""Statement by name."""

SCHEMA = tuple(
    file.read_text(encoding="utf-8")
    for file in sorted(_FOLDER.joinpath("schema").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".sql")
)
"""What makes each version from the one before it; the first is version 1."""
