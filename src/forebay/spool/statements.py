"""The SQL of each room, from its file `statements.sql`, and the scripts that make the tables."""

from __future__ import annotations

import re
from importlib import resources


def read_statements(room: str) -> dict[str, str]:
    """Return the statements of a package by name; names of fragments in braces are replaced by the fragments."""
    text = resources.files(room).joinpath("statements.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- (name|fragment): (\w+)\n", text, flags=re.MULTILINE)[1:]
    named = list(zip(parts[::3], parts[1::3], (part.strip() for part in parts[2::3]), strict=True))
    # Only text of this file is put in; values are always bound.
    fragments = {f"{{{name}}}": f"(\n{part}\n)" for kind, name, part in named if kind == "fragment"}
    return {name: _fill(part, fragments) for kind, name, part in named if kind == "name"}


def _fill(statement: str, fragments: dict[str, str]) -> str:
    for placeholder, fragment in fragments.items():
        statement = statement.replace(placeholder, fragment)
    return statement


SQL = read_statements("forebay.spool")
"""The store's statements by name."""

SCHEMA = (resources.files("forebay.spool").joinpath("schema.sql").read_text(encoding="utf-8"),)
"""The scripts that make a spool: the first makes version 1, each further one makes the next version."""
