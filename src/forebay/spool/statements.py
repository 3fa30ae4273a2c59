"""The spool's SQL, read from the files beside this one."""

from __future__ import annotations

import re
from importlib import resources

_FOLDER = resources.files("forebay.spool")


def _parse(text: str) -> dict[str, str]:
    parts = re.split(r"^-- (name|fragment): (\w+)\n", text, flags=re.MULTILINE)[1:]
    named = list(zip(parts[::3], parts[1::3], (part.strip() for part in parts[2::3]), strict=True))
    # From this one file and nowhere else: values are always bound.
    fragments = {f"{{{name}}}": f"(\n{part}\n)" for kind, name, part in named if kind == "fragment"}
    return {name: _fill(part, fragments) for kind, name, part in named if kind == "name"}


def _fill(statement: str, fragments: dict[str, str]) -> str:
    for place, fragment in fragments.items():
        statement = statement.replace(place, fragment)
    return statement


SQL = _parse(_FOLDER.joinpath("statements.sql").read_text(encoding="utf-8"))
"""Statement by name."""

SCHEMA = (_FOLDER.joinpath("schema.sql").read_text(encoding="utf-8"),)
"""The scripts that make a spool: the first makes version 1, each further one a version from the one before it."""
