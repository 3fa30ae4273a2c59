"""Checks whether our index templates are there, as new as this Forebay's, and those that count."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level, fail, ok, warn
from forebay.sinks.opensearch.template import EVENTS, NAME, IndexTemplate
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES


class _Template(Struct):
    index_patterns: list[str]
    priority: int | None = None
    version: int | None = None
    data_stream: Any = None


class Template(Struct):
    """An index template with its name.

    Of the templates whose patterns fit an index, only the one with the highest priority counts
    (https://docs.opensearch.org/latest/im-plugin/index-templates/).
    """

    name: str
    index_template: _Template

    @property
    def priority(self) -> int:
        """The priority; without one it is the lowest."""
        return self.index_template.priority or 0

    def fits(self, index: str) -> bool:
        """Return whether one of the patterns fits."""
        return any(fnmatchcase(index, pattern) for pattern in self.index_template.index_patterns)


class _Templates(Struct):
    index_templates: list[Template]


def read_templates(context: Context) -> list[Template]:
    """Return all index templates."""
    return context.answers().read("templates", _Templates).index_templates


def check(context: Context) -> Iterator[Finding]:
    """Check our templates, and those that may come before them.

    The months need theirs. Those of UBI are there once they were needed, and are not spoken of if they are well.
    """
    there, month = read_templates(context), context.index()
    if all(template.name != EVENTS.name for template in there):
        yield _describe_missing(is_put=context.settings.index_template)
    else:
        yield from _check_one(EVENTS, month, there, "`forebay index init`")
    for index, template in UBI_TEMPLATES.items():
        found = _check_one(template, index, there, "`forebay index init --ubi`")
        yield from (finding for finding in found if finding.level is not Level.OK)


def _check_one(template: IndexTemplate, index: str, there: list[Template], remedy: str) -> Iterator[Finding]:
    """Check a template that should be for an index, if it is there."""
    name = template.name
    ours = next((other for other in there if other.name == name), None)
    if ours is None:
        return
    version = ours.index_template.version or 0
    text = f"{name} is there, version {version}"
    if version < template.version:
        yield warn(f"{text}; this Forebay has {template.version}", remedy)
    others = sorted(other.name for other in there if other.priority > ours.priority and other.fits(index))
    if others:
        yield fail(
            f"{name} does not count for {index}: {', '.join(others)} has a higher priority than {ours.priority}",
            "give the other narrower index_patterns or a lower priority",
        )
    elif version >= template.version:
        yield ok(text)


def _describe_missing(*, is_put: bool) -> Finding:
    if is_put:
        return warn(f"{NAME} is not there", "start the server, or `forebay index init`")
    text = f"{NAME} is not there and FOREBAY_INDEX_TEMPLATE=false: mappings come from another, or by guess"
    return warn(text, "`forebay index init`, unless you have a template of your own")
