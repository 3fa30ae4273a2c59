"""`forebay doctor`: checks everything that events depend on, and gives advice."""

from __future__ import annotations

from typing import Annotated

import typer

from forebay.cli.options import AsJson
from forebay.cli.output import print_json, say
from forebay.doctor.finding import Finding, is_well


def doctor(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Check every page and group of the spools, however long.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings, spools, OpenSearch, clocks and the running server; exit with 1 if something has failed."""
    from forebay.doctor.checks import examine  # noqa: PLC0415 - no other command needs it

    findings = []
    for finding in examine(is_full=full):
        findings.append(finding)
        _show(finding, as_json=as_json)
    raise typer.Exit(0 if is_well(findings) else 1)


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        level, text, advice, subject = finding
        print_json({"level": level, "what": subject, "finding": text, "advice": advice})
        return
    advice = f" → {finding.advice}" if finding.advice else ""
    say(f"{finding.level:<4}  {finding.subject}  {finding.text}{advice}")
