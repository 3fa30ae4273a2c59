"""A folder with a spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.denials.making import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    database = tmp_path / "spool.db"
    database.touch()
    return Files(database, tmp_path / "spool.db.denials")
