"""`forebay doctor`: looks at everything that events depend on, and says what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from forebay.cli.options import AsJson
from forebay.cli.output import print_json, say
from forebay.findings import Finding, is_well


def doctor(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Check every page and group of the spools, however long.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at settings, spools, OpenSearch, clocks and the running server; exit with 1 where something has failed."""
    from forebay.doctor.everything import look_at_all  # noqa: PLC0415 - no other command needs it

    findings = []
    for finding in look_at_all(full=full):
        findings.append(finding)
        _show(finding, as_json=as_json)
    raise typer.Exit(0 if is_well(findings) else 1)


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        level, what, text, advice = finding
        print_json({"level": level, "what": what, "finding": text, "advice": advice})
        return
    advice = f" → {finding.advice}" if finding.advice else ""
    say(f"{finding.level:<4}  {finding.what}  {finding.text}{advice}")
