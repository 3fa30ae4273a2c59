"""The tree of errors, typed by the caller's next step.

ForebayError
├── SettingsError       stop: the operator corrects a setting
├── CommandFailed       stop: the person corrects the command, or has not confirmed it
├── NotADocument        stop: the person corrects the text that was given as a document
├── ListNotChanged      stop: the person corrects the command, or the file's disk or rights
├── Rejection           answer: the client corrects the request
├── NotYet              wait, and try once more
│   ├── KeyNotKnown     the provider of the token may have a new key then
│   └── StillPacked     the body is unpacked then
├── SpoolError
│   ├── SpoolUnusable   stop: the database cannot be opened, or another process owns it
│   │   └── SpoolDamaged  the owner rescues every readable row, everybody else stops
│   └── SpoolUnavailable  answer 503 and go on: nothing was stored, the client sends again
│       ├── GroupDamaged  leave this group, and go on behind it
│       └── SpoolLost     the same, and end: this process stores nothing any more
│           └── SpoolInDoubt  close the connection unanswered, and end: it may have been stored
├── ExportFailed        keep the dead letters that were to be deleted, and tell the operator
└── SinkUnreachable     try again, or tell the reader: the sink gave no usable answer
    ├── OperatorNeeded  try again slowly: an operator has to change something first
    └── AnswerTooLarge  ask for less at once
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple


class ForebayError(Exception):
    """Any error that Forebay raises on purpose; its text is one line that a person can act on."""


class SettingsError(ForebayError):
    """A setting is missing or not allowed; the text names each variable, its value and the allowed values."""


class CommandFailed(ForebayError):
    """A command cannot be understood, or was not confirmed; `exit_code` is the process's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotADocument(ForebayError):
    """The corrected text is not a valid document; the message names the field and the reason. Nothing was changed."""


class ListNotChanged(ForebayError):
    """A command could not change the denial list; the servers keep the one that they have."""


FIELD_CHARS_MAX = 200
"""Most characters of a field's name in a refusal."""


class FieldError(NamedTuple):
    """A field of a request that is at fault, and the reason."""

    field: str
    reason: str

    def cut(self) -> FieldError:
        """Return it with a long name cut: one that a client made up may be as long as its body."""
        if len(self.field) <= FIELD_CHARS_MAX:
            return self
        return FieldError(f"{self.field[:FIELD_CHARS_MAX]}…", self.reason)


class Rejection(ForebayError):
    """A request, or an event of a batch, is refused.

    Attributes:
        status: the HTTP status of the answer.
        detail: one sentence for the developer of the client.
        errors: the fields at fault, if single fields are.
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

    def without_frames(self) -> Rejection:
        """Return the refusal without the frames that it passed: they lead back to whatever keeps it.

        Such a cycle stays until the collector comes, which is seldom, and keeps the whole request.
        """
        self.__context__ = None
        return self.with_traceback(None)


class NotYet(ForebayError):
    """Something that takes time is missing.

    Attributes:
        wait: a coroutine function that returns as soon as it is worth a new try, or after a limit.
    """

    def __init__(self, detail: str, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__(detail)
        self.wait = wait


class KeyNotKnown(NotYet):
    """A token is signed with a key that its provider has not published yet, as far as we know."""

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__("the key of the token is not known yet", wait)


class SpoolError(ForebayError):
    """The spool could not do its work."""


class SpoolUnusable(SpoolError):
    """The spool cannot be opened: no such folder, not a database, a newer version, or another owner."""


class SpoolDamaged(SpoolUnusable):
    """The spool's file is damaged.

    Attributes:
        cause: the damage, in a few words.
    """

    def __init__(self, detail: str, cause: str) -> None:
        super().__init__(detail)
        self.cause = cause


class SpoolUnavailable(SpoolError):
    """Nothing was stored; the client may send the same request again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int = 5) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class GroupDamaged(SpoolUnavailable):
    """A group cannot be read; it stays in the file for a person to examine.

    Attributes:
        group_id: its number, behind which to go on.
    """

    def __init__(self, group_id: int, reason: str) -> None:
        super().__init__(f"group {group_id} cannot be read: {reason}")
        self.group_id = group_id


class EventsTakenBack(SpoolUnavailable):
    """A commit is stored but for the events that clients wait for: these are not there, and all others are.

    Attributes:
        stored_bytes: as of a commit that succeeded.
    """

    def __init__(self, reason: str, stored_bytes: Mapping[int, int]) -> None:
        super().__init__(reason)
        self.stored_bytes = stored_bytes


class SpoolLost(SpoolUnavailable):
    """Nothing will be stored until the next start, which rescues the spool if it is damaged."""


class SpoolInDoubt(SpoolLost):
    """Only the next start will know whether it was stored, so no answer can be right."""


class ExportFailed(ForebayError):
    """Dead letters could not be written to a file."""


class SinkUnreachable(ForebayError):
    """The sink gave no usable answer.

    Attributes:
        error_type: the cause in one word, for the outcome of a bulk.
    """

    def __init__(self, detail: str, error_type: str = "unreachable") -> None:
        super().__init__(detail)
        self.error_type = error_type


class OperatorNeeded(SinkUnreachable):
    """The sink, or something on the way to it, refuses until an operator acts.

    Attributes:
        advice: a remedy for the operator.
    """

    def __init__(self, detail: str, error_type: str, advice: str) -> None:
        super().__init__(detail, error_type)
        self.advice = advice


class AnswerTooLarge(SinkUnreachable):
    """The sink's answer is larger than the limit; the sink may have done its work."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "answer_too_large")
