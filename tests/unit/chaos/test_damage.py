"""Faults damage a part that the file needs."""

import contextlib
import sqlite3
from pathlib import Path

from chaos.faults.damage import FRAME_BYTES, LOG_HEADER_BYTES, overwrite_log
from forebay.spool.files import PAGE_BYTES


def write_rows(connection: sqlite3.Connection, rows: int) -> None:
    for number in range(rows):
        connection.execute("INSERT INTO a VALUES (?)", (bytes([number % 256]) * 3_000,))


def test_noise_in_a_log_strikes_its_present_frames_and_not_old_ones_behind(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    log = tmp_path / "spool.db-wal"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE a (b)")
        write_rows(connection, 400)
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        write_rows(connection, 20)
        (frames,) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1:2]
        before = log.read_bytes()
        overwrite_log(path)
        after = log.read_bytes()
    assert len(after) == len(before) > LOG_HEADER_BYTES + 4 * frames * FRAME_BYTES
    struck = next(offset for offset, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
    assert LOG_HEADER_BYTES < struck < LOG_HEADER_BYTES + frames * FRAME_BYTES
