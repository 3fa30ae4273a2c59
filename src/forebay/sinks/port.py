"""What a sink is: where events end, and where they can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from msgspec import Raw

from forebay.model import Entry, Outcome


class Sink(Protocol):
    """Takes bulks.

    Attributes:
        place: where events go, for people; it holds no secret.
    """

    place: str

    async def open(self) -> None:
        """Make ready what can be made ready; a sink that is down is no error, it is met again at delivery."""

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index; told before each bulk."""

    async def deliver(self, entries: list[Entry]) -> list[Outcome]:
        """Return what became of each entry, in their order; what is not known is a retry."""

    def repair(self, entry: Entry) -> Entry:
        """Return an entry that was refused in the form that the sink reads most easily; under the same address."""

    async def close(self) -> None:
        """Let go of connections and files."""


class Query(NamedTuple):
    """Which documents to read, newest first.

    Attributes:
        where: wanted values by field; `page`, `event`, `label`, `target`, `section` and `param.…` stand for
            the same under `event_info`.
        received_after: only documents with a later `received_at` (RFC 3339), or all.
        limit: how many at the most.
    """

    where: Mapping[str, str]
    received_after: str | None = None
    limit: int = 10


class EventReader(Protocol):
    """Reads documents back from a sink."""

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

    async def close(self) -> None:
        """Let go of connections and files."""


_EVENT_FIELDS = frozenset({"page", "event", "label", "target", "section", "param", "extra"})


def document_path(field: str) -> str:
    """Return where a field of a query stands in a document."""
    return f"event_info.{field}" if field.partition(".")[0] in _EVENT_FIELDS else field
