"""A folder of its own for each test, and a way to run commands in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from forebay import cli
from forebay.cli import commands
from forebay.settings import Settings, variable_name
from unit.cli.running import Folder, Result, Run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def built_app() -> Callable[..., Any]:
    """Return the commands, built once: typer builds them for each call, which takes longer than most commands."""
    return get_command(commands.app)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, built_app: Callable[..., Any]) -> Run:
    monkeypatch.setattr(commands, "app", built_app)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = cli.main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment of a command that runs as a process."""
    return {"PATH": os.environ["PATH"]}
