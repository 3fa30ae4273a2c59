"""Contexts for checks, made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from forebay.doctor import checks
from forebay.doctor.checks import CHECKS
from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, Level
from forebay.doctor.opensearch.answers import Answers, AnswerUnknown, NotAsked, TimedAnswer
from forebay.doctor.runner import run_checks
from forebay.settings import Settings
from forebay.sinks.port import SinkCheck

NOW = datetime(2026, 11, 15, tzinfo=UTC)
INDEX = "events_prod_2026-11"

OF_OURSELVES = {"server", "spool", "file", "spool room", "denials", "clock"}

Check = Callable[[Context], Iterable[Finding]]


def make_settings(**changed: Any) -> Settings:
    return Settings(_env_file=None, **{"SERVER_ENVIRONMENT": "prod", "JWT_SECRET": "x" * 32, **changed})


def make_context(settings: Settings | None = None, answers: Answers | None = None, **changed: Any) -> Context:
    """Return a context of a sink that was not asked, and of an OpenSearch with some answers or none."""

    def read_answers() -> Answers:
        if answers is None:
            raise NotAsked
        return answers

    return Context(
        settings=settings or make_settings(), sink=lambda: SinkCheck([]), answers=read_answers, now=NOW, **changed
    )


def judge(check: Check, settings: Settings | None = None, /, **answers: Any) -> list[Finding]:
    """Return the findings of a check on answers of OpenSearch; each fault comes with advice."""
    given: dict[str, TimedAnswer | AnswerUnknown] = {
        name: TimedAnswer(json.dumps(answer).encode()) for name, answer in answers.items()
    }
    found = list(check(make_context(settings, Answers(given))))
    assert all(finding.advice for finding in found if finding.level is not Level.OK)
    return found


def levels(found: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in found]


async def check_opensearch(settings: Settings) -> list[Finding]:
    """Run every check of the sink and OpenSearch that settings name."""
    chosen = [check for check in CHECKS if check.subject not in OF_OURSELVES]
    return await asyncio.to_thread(lambda: list(run_checks(chosen, checks.make_context(settings))))
