"""Fills the parts of docs/reference that come from the code: settings, the commands' help and metrics.

    make docs

A part stands between a line `<!-- KIND: NAME -->` and a line `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from annotated_types import Ge, Gt, Le
from prometheus_client.parser import text_string_to_metric_families
from pydantic.fields import FieldInfo

from forebay import cli
from forebay.admin import metrics
from forebay.admin.snapshot import ServerSnapshot
from forebay.byte_size import format_bytes
from forebay.settings import DIVIDED, Settings, variable_name

FOLDER = Path(__file__).parent / "reference"
PART = re.compile(
    r"(?<=<!-- )(?P<kind>settings|command|metrics): (?P<name>[a-z_ ]+) -->\n.*?(?=<!-- end -->)", re.DOTALL
)
HELP_COLUMNS = 80


def render(page: str) -> str:
    """Return a page with its parts made anew.

    Raises:
        ValueError: a part names a command that does not exist.
    """
    groups = group_settings([match["name"] for match in PART.finditer(page) if match["kind"] == "settings"])

    def fill(match: re.Match[str]) -> str:
        kind, name = match["kind"], match["name"]
        if kind == "settings":
            made = render_settings(groups[name])
        elif kind == "command":
            made = render_help(name)
        else:
            made = render_metrics(name)
        return f"{kind}: {name} -->\n\n{made}\n"

    return PART.sub(fill, page)


def group_settings(starts: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the settings from each of these fields up to the next of them, in the order of the class."""
    groups: dict[str, list[str]] = {start: [] for start in starts}
    current: list[str] = []
    for field in Settings.model_fields:
        current = groups.get(field, current)
        current.append(field)
    return groups


def render_settings(fields: Iterable[str]) -> str:
    """Return a table of settings."""
    rows = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    for field in fields:
        info = Settings.model_fields[field]
        note = f" ({DIVIDED})" if DIVIDED in info.metadata else ""
        meaning = join_lines(f"{info.description}{note}")
        cells = (f"`{variable_name(field)}`", show_default(field), show_allowed(info), meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def show_default(field: str) -> str:
    """Return a default as it would be written in `.env`."""
    default = Settings.model_fields[field].default
    if default in (None, ()):
        return ""
    if field == "database_url":
        return f"`sqlite://{default}`"
    text = str(default).lower() if isinstance(default, bool) else str(getattr(default, "value", default))
    return f"`{text}` ({format_bytes(default)})" if "bytes" in field else f"`{text}`"


def show_allowed(info: FieldInfo) -> str:
    """Return the values that are allowed, if the type says it."""
    kind: Any = info.annotation
    if kind is bool:
        return "`true`, `false`"
    if hasattr(kind, "__members__"):
        return ", ".join(f"`{member.value}`" for member in kind)
    bounds = [
        f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}"
        for bound in info.metadata
        for word, value in [read_bound(bound)]
        if word
    ]
    return ", ".join(bounds)


def read_bound(bound: object) -> tuple[str, Any]:
    """Return a bound in words, with its number."""
    if isinstance(bound, Gt):
        return "more than", bound.gt
    if isinstance(bound, Ge):
        return "at least", bound.ge
    if isinstance(bound, Le):
        return "at most", bound.le
    return "", None


def render_help(command: str) -> str:
    """Return a command's help as a block of text.

    Raises:
        ValueError: there is no such command.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), mock.patch.dict(os.environ, {"COLUMNS": str(HELP_COLUMNS)}):
        code = cli.main([*command.split()[1:], "--help"])
    if code:
        raise ValueError(f"there is no command {command!r}")
    return f"```text\n{printed.getvalue().strip()}\n```\n"


def render_metrics(prefix: str) -> str:
    """Return a table of the metrics whose name begins with a prefix."""
    text = metrics.render(ServerSnapshot(workers=1, snapshots={})).decode()
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for family in text_string_to_metric_families(text):
        if family.name.startswith(f"{prefix}_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            rows.append(f"| `{name}` | {family.type} | {join_lines(family.documentation)} |")
    return "\n".join(rows) + "\n"


def join_lines(text: str) -> str:
    """Return a text as a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def main() -> None:
    """Write the pages."""
    for path in FOLDER.glob("*.md"):
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
