"""Checks whether the index template is there, as new as this Forebay's, and the one that counts."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.sinks.opensearch.template import NAME, VERSION


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
    """Check our template, and those that may come before it."""
    templates, index = read_templates(context), context.index()
    ours = next((template for template in templates if template.name == NAME), None)
    if ours is None:
        yield _describe_missing(is_put=context.settings.index_template)
        return
    version = ours.index_template.version or 0
    text = f"{NAME} is there, version {version}"
    if version < VERSION:
        yield warn(f"{text}; this Forebay has {VERSION}", "`forebay index init`")
    others = sorted(other.name for other in templates if other.priority > ours.priority and other.fits(index))
    if others:
        yield fail(
            f"{NAME} does not count for {index}: {', '.join(others)} has a higher priority than {ours.priority}",
            "give the other narrower index_patterns or a lower priority",
        )
    elif version >= VERSION:
        yield ok(text)


def _describe_missing(*, is_put: bool) -> Finding:
    if is_put:
        return warn(f"{NAME} is not there", "start the server, or `forebay index init`")
    text = f"{NAME} is not there and FOREBAY_INDEX_TEMPLATE=false: mappings come from another, or by guess"
    return warn(text, "`forebay index init`, unless you have a template of your own")
