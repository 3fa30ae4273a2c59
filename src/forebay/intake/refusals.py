"""The answers that refuse a request, each with its reason as problem details."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from forebay.errors import FieldError, Rejection, SpoolUnavailable
from forebay.intake.answers import Answer, Headers, head
from forebay.problems import PROBLEM_TYPE, problem

ANSWERS_MAX = 100
"""How many answers are kept: a client that is refused often, or a flood of them, should cost little."""

FAILED = Rejection(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; nothing was taken")
"""After a fault of our own."""

CHANGED = SpoolUnavailable("the denial list or a key has changed meanwhile", retry_after_s=1)
"""Whoever sends again is judged anew."""


def rejection(error: Rejection) -> Answer:
    """Return the answer that tells a client its mistake."""
    return _reject(error.status, error.detail, error.errors, error.headers)


@lru_cache(maxsize=ANSWERS_MAX)
def _reject(status: int, detail: str, errors: tuple[FieldError, ...], headers: Headers) -> Answer:
    body = problem(status, detail, errors)
    return status, head(status, PROBLEM_TYPE, len(body), headers), body


def unavailable(error: SpoolUnavailable) -> Rejection:
    """Return the refusal that asks a client to send again, and when."""
    retry_after = ("Retry-After", str(error.retry_after_s))
    return Rejection(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers=(retry_after,))
