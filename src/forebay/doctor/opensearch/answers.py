"""The answers of OpenSearch, by the name of their question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

T = TypeVar("T")


class NotAsked(Exception):
    """OpenSearch was not asked anything: there is none, or it does not answer; another finding gives the reason."""


class AnswerUnknown(Exception):
    """OpenSearch did not give an answer that can be read.

    Attributes:
        advice: the next step for an operator.
    """

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


class TimedAnswer(NamedTuple):
    """The body of an answer, and our clock before and after, in milliseconds since 1970."""

    body: bytes
    asked_at_ms: int = 0
    answered_at_ms: int = 0


class Answers:
    """The answers, of which some may be unknown."""

    def __init__(self, given: Mapping[str, TimedAnswer | AnswerUnknown]) -> None:
        self._given = given

    def read(self, name: str, kind: type[T]) -> T:
        """Return an answer (`AnswerUnknown` if there is none, or it has another form); numbers may come as text."""
        try:
            return msgspec.json.decode(self.timed(name).body, type=kind, strict=False)
        except (ValueError, RecursionError) as error:
            raise unreadable(str(error)) from error

    def timed(self, name: str) -> TimedAnswer:
        """Return an answer as it came (`AnswerUnknown` if there is none)."""
        given = self._given[name]
        if isinstance(given, AnswerUnknown):
            raise given
        return given


def unreadable(detail: str) -> AnswerUnknown:
    """Return the error for an answer of another form than OpenSearch's."""
    return AnswerUnknown(
        f"the answer does not have OpenSearch's form ({detail})",
        "see whether something stands between us and OpenSearch",
    )
