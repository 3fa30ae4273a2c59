"""Checks whether the ingest pipeline is there through which all events go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok


def check(context: Context) -> Iterator[Finding]:
    """Look for the pipeline of FOREBAY_OPEN_SEARCH_PIPELINE, if one is set."""
    name = context.settings.open_search_pipeline
    if name is None:
        return
    if name in context.answers().read("pipelines", dict[str, Any]):
        yield ok(f"{name} is there")
    else:
        yield fail(
            f"{name} is not there: OpenSearch takes no event", "create it, or correct FOREBAY_OPEN_SEARCH_PIPELINE"
        )
