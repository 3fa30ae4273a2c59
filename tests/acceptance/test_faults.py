"""The faults of docs/reliability.md in a short form: nothing is lost, nothing is doubled, and it is over soon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.faults.clock import NoFaketime
from chaos.matrix import ROWS
from chaos.rows import Backend, Loss, Row
from chaos.scale import SHORT
from chaos.trial import Backends, try_row
from testbed.servers.fixtures import ONE_PROCESS, report_missing

LOG_SHOWN_CHARS = 5_000


def runs() -> Iterator[object]:
    for row in ROWS:
        for ack in row.short_acks:
            marks = ONE_PROCESS if row.backend is Backend.OWN else ()
            yield pytest.param(row, ack, id=f"{row.name}-{ack}", marks=marks)


@pytest.mark.parametrize(("row", "ack"), list(runs()))
async def test_nothing_is_lost_and_nothing_doubled_by(
    row: Row, ack: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture = "own_opensearch" if row.backend is Backend.OWN else "opensearch"
    server = request.getfixturevalue(fixture)
    try:
        result = await try_row(row, ack, SHORT, Backends(lambda: server.url, lambda: server), tmp_path)
    except NoFaketime as error:
        report_missing(str(error))
    assert result.problem == "", f"{result.problem}; the end of the server's log:\n{_read_log_end(tmp_path)}"
    assert result.duplicated == 0
    if row.may_lose(ack) is Loss.NOTHING:
        assert result.lost == 0


def _read_log_end(folder: Path) -> str:
    return (folder / "forebay.err").read_text(errors="replace")[-LOG_SHOWN_CHARS:]
