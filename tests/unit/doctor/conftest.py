"""A folder of its own for each test, and no setting from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.settings import Settings, variable_name
from unit.cli.running import Folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)
