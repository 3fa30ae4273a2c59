"""Fixtures that the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a spool that is not there yet."""
    return tmp_path / "spool.db"
