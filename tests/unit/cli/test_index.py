"""The index template is put in place by hand."""

from __future__ import annotations

import pytest

from forebay.settings import Settings
from forebay.sinks import opensearch
from unit.cli.running import Run


def test_what_was_done_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def put_template(settings: Settings) -> str:
        return f"put into {settings.open_search_dns}"

    monkeypatch.setattr(opensearch, "put_template", put_template)
    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://localhost:9200")

    assert run("index", "init") == (0, "put into (http://localhost:9200,)\n", "")


def test_no_opensearch_is_one_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("index", "init")
    assert (code, out, err.count("\n")) == (1, "", 1)

    monkeypatch.setenv("OPEN_SEARCH_DNS", "http://user:hunter2@127.0.0.1:1")
    code, out, err = run("index", "init")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "hunter2" not in err
