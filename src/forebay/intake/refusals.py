"""The answers that refuse a request, each with its reason as problem details."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

from forebay.errors import FieldError, Rejection, SpoolUnavailable
from forebay.intake.answers import Answer, head
from forebay.problems import PROBLEM_TYPE, problem

Lines: TypeAlias = tuple[tuple[str, str], ...]
MakeAnswer: TypeAlias = Callable[[int, str, tuple[FieldError, ...], Lines], Answer]
"""Makes the answer with a status, a detail, fields at fault, and header lines."""

ANSWERS_MAX = 100
"""How many answers are kept: a client that is refused often, or a flood of them, should cost little."""

DETAIL_CHARS_MAX = 500
"""Longest detail of an answer that is kept: one that repeats a client's words may be as long as a request."""

FAILED = Rejection(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; nothing was taken")
"""After a fault of our own."""

CHANGED = SpoolUnavailable("the denial list or a key has changed meanwhile", retry_after_s=1)
"""Whoever sends again is judged anew."""


def rejection(error: Rejection) -> Answer:
    """Return the answer that tells a client its mistake."""
    return _reject(error.status, error.detail, error.errors, error.headers)


def keep_answers(make: MakeAnswer) -> MakeAnswer:
    """Return a function that makes the same answer once; one that may repeat a client's words is made each time."""
    kept = lru_cache(maxsize=ANSWERS_MAX)(make)

    def find(status: int, detail: str, errors: tuple[FieldError, ...], headers: Lines) -> Answer:
        if errors or len(detail) > DETAIL_CHARS_MAX:
            return make(status, detail, errors, headers)
        return kept(status, detail, errors, headers)

    return find


@keep_answers
def _reject(status: int, detail: str, errors: tuple[FieldError, ...], headers: Lines) -> Answer:
    body = problem(status, detail, errors)
    return status, head(status, PROBLEM_TYPE, len(body), headers), body


def unavailable(error: SpoolUnavailable) -> Rejection:
    """Return the refusal that asks a client to send again, and when."""
    retry_after = ("Retry-After", str(error.retry_after_s))
    return Rejection(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers=(retry_after,))
