"""What can go wrong, typed by what the caller does next.

ForebayError
├── SettingsError       stop: the operator corrects a setting
├── NotADocument        correct it: what was given to a command in place of a document is none
├── Rejection           answer: the client corrects the request
├── SpoolError
│   ├── SpoolUnusable   stop: the database cannot be opened, or somebody else owns it
│   │   └── SpoolDamaged  the owner saves what can be read, everybody else stops
│   └── SpoolUnavailable  answer 503 and go on: nothing was stored, the client sends again
│       └── SpoolLost     the same, and end: this process stores nothing any more
│           └── SpoolInDoubt  close the connection unanswered, and end: it may have been stored
├── ExportFailed        keep what was to be deleted, and tell the operator
└── SinkUnreachable     try again, or tell the reader: what was asked of the sink could not be had
    ├── OperatorNeeded  try again slowly: an operator has to change something first
    └── AnswerTooLarge  ask for less at once
"""

from __future__ import annotations

from typing import NamedTuple


class ForebayError(Exception):
    """Any error that Forebay raises on purpose; its text is one line that a person can act on."""


class SettingsError(ForebayError):
    """A setting is missing or not allowed; the text names each variable, its value and what is allowed."""


class NotADocument(ForebayError):
    """A corrected document cannot be sent; the text names the field and the reason, and nothing was changed."""


class FieldError(NamedTuple):
    """One field of a request that is to blame, and why."""

    field: str
    reason: str


class Rejection(ForebayError):
    """A request, or one event of a batch, that cannot be taken as it is.

    Attributes:
        status: the HTTP status of the answer.
        detail: one sentence for the developer of the client.
        errors: the fields to blame, empty where no single field is.
        headers: further header lines of the answer, such as `Allow`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers


class SpoolError(ForebayError):
    """The spool could not do what was asked of it."""


class SpoolUnusable(SpoolError):
    """The spool cannot be opened: no such folder, no database, a newer version, or another owner."""


class SpoolDamaged(SpoolUnusable):
    """The file is not as it was left.

    Attributes:
        cause: what is wrong with it.
    """

    def __init__(self, detail: str, cause: str) -> None:
        super().__init__(detail)
        self.cause = cause


class SpoolUnavailable(SpoolError):
    """Nothing was stored, and the same request may be sent again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int = 5) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class SpoolLost(SpoolUnavailable):
    """Nothing will be stored until the next start, which repairs the spool if it needs to be."""


class SpoolInDoubt(SpoolLost):
    """Whether it was stored is not known before the next start: no answer can be right."""


class ExportFailed(ForebayError):
    """Dead letters could not be written to a file."""


class SinkUnreachable(ForebayError):
    """The sink did not give the answer that was asked for.

    Attributes:
        error_type: what is wrong, in one word, for the outcome of a bulk.
    """

    def __init__(self, detail: str, error_type: str = "unreachable") -> None:
        super().__init__(detail)
        self.error_type = error_type


class OperatorNeeded(SinkUnreachable):
    """The sink, or what is needed to reach it, refuses, and will until an operator acts.

    Attributes:
        advice: what the operator can do.
    """

    def __init__(self, detail: str, error_type: str, advice: str) -> None:
        super().__init__(detail, error_type)
        self.advice = advice


class AnswerTooLarge(SinkUnreachable):
    """The sink's answer is larger than what is read of one; what was asked of it may have been done."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "answer_too_large")
