"""Fixtures that the tests of the spool and of its neighbours share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.spool.spool import Spool
from unit.pipeline.fakes import open_spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a spool that is not there yet."""
    return tmp_path / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    """A spool that is open."""
    async with open_spool(path) as spool:
        yield spool
