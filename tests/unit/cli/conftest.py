"""A folder of its own for each test, and a way to run commands in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forebay.cli import main
from forebay.settings import Settings, variable_name
from unit.cli.running import Folder, Result, Run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment of a command that runs as a process."""
    return {"PATH": os.environ["PATH"]}
