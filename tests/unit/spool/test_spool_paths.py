from pathlib import Path

import pytest

from forebay.spool.spool_paths import find_spools, spool_path


@pytest.mark.parametrize(("slot", "name"), [(1, "spool.db"), (2, "spool.2.db"), (12, "spool.12.db")])
def test_each_worker_has_a_file_of_its_own_beside_the_named_one(slot: int, name: str) -> None:
    assert spool_path(Path("/data/spool.db"), slot) == Path("/data") / name


def test_spools_are_found_by_slot_and_nothing_else_is(tmp_path: Path) -> None:
    database = tmp_path / "spool.db"
    for name in ("spool.10.db", "spool.db", "spool.2.db", "spool.1.db", "spool.02.db", "spool.2.db-wal", "spoolx2.db"):
        (tmp_path / name).touch()
    assert find_spools(database) == {1: database, 2: tmp_path / "spool.2.db", 10: tmp_path / "spool.10.db"}


def test_no_spool_is_found_where_none_is(tmp_path: Path) -> None:
    assert find_spools(tmp_path / "spool.db") == {}
