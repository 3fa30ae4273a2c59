"""Every row of the table, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.faults import clock, damage, disk, files, log, network, opensearch, refusals, server, workers
from chaos.rows import Row

ROWS: Sequence[Row] = (
    *server.ROWS,
    *workers.ROWS,
    *opensearch.ROWS,
    *network.ROWS,
    *refusals.ROWS,
    *disk.ROWS,
    *damage.ROWS,
    *files.ROWS,
    *log.ROWS,
    *clock.ROWS,
)
BY_NAME = {row.name: row for row in ROWS}
