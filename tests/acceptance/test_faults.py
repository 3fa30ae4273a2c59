"""The faults of docs/reliability.md in a short form: nothing is lost, nothing is doubled, and it is over soon."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chaos.faults.clock import NoFaketime
from chaos.matrix import ROWS
from chaos.rows import Loss, Row
from chaos.scale import SHORT
from chaos.trial import Places, try_row
from testbed.servers.fixtures import OpenSearchAddress, report_missing
from testbed.servers.opensearch import OpenSearchServer


@pytest.fixture(scope="module")
def own(opensearch_home: Path) -> Iterator[Callable[[], OpenSearchServer]]:
    """One server for all rows that stop, freeze or restart it."""
    with ExitStack() as stack:
        servers: list[OpenSearchServer] = []

        def get() -> OpenSearchServer:
            if not servers:
                servers.append(stack.enter_context(OpenSearchServer(opensearch_home)))
            server = servers[0]
            # The row before may have failed with the server frozen, or away.
            if not server.is_running:
                server.start()
            server.resume()
            server.wait_ready()
            return server

        yield get


def trials() -> Iterator[object]:
    for row in ROWS:
        for ack in row.short_acks:
            yield pytest.param(row, ack, id=f"{row.name}-{ack}")


@pytest.mark.parametrize(("row", "ack"), list(trials()))
async def test_nothing_is_lost_and_nothing_doubled_by(
    row: Row, ack: str, opensearch: OpenSearchAddress, own: Callable[[], OpenSearchServer], tmp_path: Path
) -> None:
    try:
        result = await try_row(row, ack, SHORT, Places(lambda: opensearch.url, own), tmp_path)
    except NoFaketime as error:
        report_missing(str(error))
    assert result.problem == ""
    assert result.duplicated == 0
    if row.may_lose(ack) is Loss.NOTHING:
        assert result.lost == 0
