"""The one protocol of a sink: events are delivered to it, and read, counted, checked and deleted there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Raw

from forebay.model import Entry, Outcome
from forebay.sinks.months import StoredMonth


class Query(NamedTuple):
    """Selects documents, newest first.

    Attributes:
        fields: wanted values by field; `page`, `event`, `label`, `target`, `section` and `param.…` stand for
            the same under `event_info`.
        received_after: only documents with a later `received_at` (RFC 3339), or all.
        limit: the most documents to return.
    """

    fields: Mapping[str, str]
    received_after: str | None = None
    limit: int = 10


class CheckResult(NamedTuple):
    """The state of one address of a sink, or of our rights there; no part of it holds a secret.

    Attributes:
        subject: the thing that was checked, as in `opensearch http://localhost:9200`.
        text: the state that was found.
        advice: the next step for an operator, empty if none is needed.
        is_usable: whether events can go there, as far as is known.
    """

    subject: str
    text: str
    advice: str = ""
    is_usable: bool = True


class SinkCheck(NamedTuple):
    """The answer to "does it answer, does it know us, and may we write?".

    Attributes:
        addresses: the state of each address, in the order of the settings.
        rights: whether we may write, or None if nobody could be asked or everybody may.
    """

    addresses: list[CheckResult]
    rights: CheckResult | None = None


class Sink(Protocol):
    """Takes events in bulks, and gives them back; to be made in the loop that it is used in.

    Attributes:
        location: the sink's name and address, for people; it holds no secret.
    """

    location: str

    async def open(self) -> None:
        """Get ready for bulks as far as possible; a sink that is down is no error, delivery meets it again."""

    async def prepare(self, *, with_ubi: bool = False) -> str:
        """Put in place the templates that an operator asked for; return one line about each.

        Raises:
            SinkUnreachable: the sink did not answer, refused, or needs none.
        """

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index; called before each bulk."""

    async def deliver(self, entries: list[Entry]) -> Sequence[Outcome]:
        """Return the outcome of each entry, in their order; an unknown one is a retry."""

    def repair(self, entry: Entry) -> Entry:
        """Return a refused entry in the form that the sink reads most easily, under the same index and id."""

    async def search(self, query: Query) -> list[Raw]:
        """Return documents as they are stored, newest `received_at` first.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
        """

    async def count(self, query: Query) -> int:
        """Count documents; the query's limit does not matter.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
        """

    async def list_months(self) -> list[StoredMonth]:
        """Return the monthly indices of our environment alone, oldest first.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
        """

    async def delete_month(self, index: str) -> None:
        """Delete a month; one that is gone already counts as deleted.

        Raises:
            SinkUnreachable: the sink did not answer, or refused.
            ValueError: the index is no month of our environment.
        """

    async def check(self) -> SinkCheck:
        """Return whether the sink answers, knows us and lets us write; nothing is written for that."""

    async def close(self) -> None:
        """Close connections and files."""


_EVENT_FIELDS = frozenset({"page", "event", "label", "target", "section", "param", "extra"})


def document_path(field: str) -> str:
    """Return the path of a query's field in a document."""
    return f"event_info.{field}" if field.partition(".")[0] in _EVENT_FIELDS else field
