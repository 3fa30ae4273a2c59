"""Keeps the index templates in place that events need: the months' always, others once their index has events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from forebay.errors import OperatorNeeded
from forebay.model import Entry, entry_index
from forebay.own_indices import has_own_documents
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.template import EVENTS, IndexTemplate
from forebay.sinks.opensearch.template_keeper import TemplateKeeper, ensure_template
from forebay.sinks.opensearch.ubi_templates import UBI_TEMPLATES


class Templates:
    """Has a `TemplateKeeper` for each template that is needed so far."""

    def __init__(self, client: OpenSearchClient, *, is_wanted: bool) -> None:
        self._client = client
        self._is_wanted = is_wanted
        self._months = self._keep(EVENTS)
        self._own: dict[str, TemplateKeeper] = {}

    def expect(self, index: str) -> None:
        """Take note that the next bulk has events of an index."""
        keeper = self._months
        if has_own_documents(index):
            if index not in self._own:
                self._own[index] = self._keep(UBI_TEMPLATES[index])
            keeper = self._own[index]
        keeper.expect(index)

    async def ensure(self, entries: Iterable[Entry] = ()) -> Mapping[str, OperatorNeeded]:
        """Return once the templates are in place that entries need; without the entries of some indices, if need be.

        Those of an index are to wait whose own template is refused: no others need it.

        Raises:
            OperatorNeeded: OpenSearch refuses the template of the months.
            SinkUnreachable: OpenSearch does not answer, or is not able to.
        """
        await self._months.ensure()
        refused: dict[str, OperatorNeeded] = {}
        for index, keeper in self._own.items():
            if keeper.is_due and any(entry_index(entry) == index for entry in entries):
                try:
                    await keeper.ensure()
                except OperatorNeeded as error:
                    refused[index] = error
        return refused

    async def prepare(self, templates: Iterable[IndexTemplate]) -> str:
        """Put templates in place, wanted or not; return a line about each.

        Raises:
            OperatorNeeded: OpenSearch refuses one.
            SinkUnreachable: OpenSearch does not answer, or is not able to.
        """
        lines = []
        for template in templates:
            was_put = await ensure_template(self._client, template)
            done = "put in place" if was_put else "there already"
            lines.append(f"index template {template.describe()}: {done}")
        return "\n".join(lines)

    def answered(self) -> None:
        """Record that OpenSearch answered a bulk."""
        for keeper in (self._months, *self._own.values()):
            keeper.answered()

    def failed(self) -> None:
        """Record that a bulk was not answered, or was refused as a whole."""
        for keeper in (self._months, *self._own.values()):
            keeper.failed()

    async def close(self) -> None:
        """End the attempts that are under way."""
        for keeper in (self._months, *self._own.values()):
            await keeper.close()

    def _keep(self, template: IndexTemplate) -> TemplateKeeper:
        return TemplateKeeper(self._client, template, is_wanted=self._is_wanted)
