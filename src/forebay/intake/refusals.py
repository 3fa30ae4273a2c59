"""The answers that refuse a request, each with its reason as problem details."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from forebay.errors import FieldError, Rejection, SpoolUnavailable
from forebay.intake.answers import Answer, head
from forebay.problems import PROBLEM_TYPE, problem

ANSWERS_MAX = 100
"""How many answers are kept: a client that is refused often, or a flood of them, should cost little."""


def rejection(error: Rejection) -> Answer:
    """Return the answer that tells a client its mistake."""
    return _reject(error.status, error.detail, error.errors, error.headers)


@lru_cache(maxsize=ANSWERS_MAX)
def _reject(status: int, detail: str, errors: tuple[FieldError, ...], headers: tuple[tuple[str, str], ...]) -> Answer:
    body = problem(status, detail, errors)
    return status, head(status, PROBLEM_TYPE, len(body), headers), body


def unavailable(error: SpoolUnavailable) -> Answer:
    """Return the answer that asks a client to send again, and when."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    body = problem(status, str(error))
    return status, head(status, PROBLEM_TYPE, len(body), (("Retry-After", str(error.retry_after_s)),)), body


def failed() -> Answer:
    """Return the answer after a fault of our own; nothing was taken."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    body = problem(status, "the server failed; nothing was taken")
    return status, head(status, PROBLEM_TYPE, len(body)), body
