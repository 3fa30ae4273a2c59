"""Lists the stored months, and those that late events may still open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, ok
from forebay.doctor.sink import ask
from forebay.errors import SinkUnreachable
from forebay.sinks.months import format_month, month_of


class _Row(Struct):
    index: str


def check(context: Context) -> Iterator[Finding]:
    """Compare the months with the oldest one that events count for."""
    settings = context.settings
    if settings.open_search_dns:
        indices = [row.index for row in context.answers().read("months", list[_Row])]
    elif settings.store_path.exists():
        try:
            indices = [month.name for month in ask(settings, lambda sink: sink.list_months())]
        except SinkUnreachable:
            return  # the line about the store gives the reason
    else:
        return
    yield judge_months(indices, settings.server_environment, settings.oldest_month)


def judge_months(indices: Iterable[str], environment: str, oldest_month: str) -> Finding:
    """Return a finding with the stored months, and those that late events may still open."""
    months = sorted(format_month(month) for index in indices if (month := month_of(index, environment)))
    if not months:
        return ok(f"none; events open any from {oldest_month} (FOREBAY_OLDEST_MONTH) on")
    text = f"{len(months)}, from {months[0]} to {months[-1]}"
    if months[0] > oldest_month:
        text += f"; late events open earlier ones too, back to {oldest_month} (FOREBAY_OLDEST_MONTH)"
    elif months[0] < oldest_month:
        text += f"; those before {oldest_month} (FOREBAY_OLDEST_MONTH) take no events"
    return ok(text)
