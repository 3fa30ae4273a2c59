"""Checks whether each month is one index: only within one does OpenSearch keep an `_id` unique."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, enumerate_some, ok, warn
from forebay.doctor.opensearch.template import read_templates
from forebay.sinks.months import month_of

CONSEQUENCE = "an event that is sent or delivered again after a rollover is there twice"


class _Alias(Struct):
    name: str
    indices: list[str]


class _DataStream(Struct):
    name: str


class _Names(Struct):
    aliases: list[_Alias]
    data_streams: list[_DataStream]


def check(context: Context) -> Iterator[Finding]:
    """Check the months that are there, and the template that makes the next one.

    A data stream gets its warning before its first rollover: it is made for that.
    """
    names = context.answers().read("names", _Names)
    kinds = {stream.name: "a data stream" for stream in names.data_streams}
    kinds |= {
        alias.name: f"an alias of {len(alias.indices)} indices" for alias in names.aliases if len(alias.indices) > 1
    }
    # The pattern of the question fits the months of other environments, too.
    environment = context.settings.server_environment
    found = [f"{name} is {kind}" for name, kind in sorted(kinds.items()) if month_of(name, environment)]
    if found:
        advice = "reindex it into one index of that name, and see that nothing rolls that over"
        yield warn(f"{enumerate_some(found)}: {CONSEQUENCE}", advice)
    fitting = [template for template in read_templates(context) if template.fits(context.index())]
    maker = max(fitting, key=lambda template: template.priority, default=None)
    if maker and maker.index_template.data_stream is not None:
        text = f"the template {maker.name} makes a data stream of a month: {CONSEQUENCE}"
        yield warn(text, f"take data_stream out of {maker.name}, or give it narrower index_patterns")
    elif not found:
        yield ok("each month is one index, in which an id is unique")
