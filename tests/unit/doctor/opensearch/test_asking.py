"""The doctor names the server at the address and the change that it needs, and writes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.doctor import clocks
from forebay.doctor.checks import make_context
from forebay.doctor.finding import Finding, Level
from forebay.settings import Settings
from unit.doctor.contexts import check_opensearch

ROOT = {"version": {"distribution": "opensearch", "number": "3.4.0"}}
REFUSED = (403, {"error": {"type": "security_exception", "reason": "no permissions"}, "status": 403})


class FakeOpenSearch:
    """Answers by path; every other path gets the default answer."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {"/": (200, ROOT)}
        self.default: tuple[int, Any] = REFUSED
        self.written: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        if request.method != "GET":
            self.written.append(f"{request.method} {request.path_qs}")
        status, answer = self.answers.get(request.path, self.default)
        return web.Response(status=status, text=answer if isinstance(answer, str) else json.dumps(answer))


@pytest.fixture
def fake() -> FakeOpenSearch:
    return FakeOpenSearch()


@pytest.fixture
async def settings(fake: FakeOpenSearch) -> AsyncIterator[Settings]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/").replace("://", "://admin:hunter2@")
        yield Settings(OPEN_SEARCH_DNS=url, _env_file=None)


async def examine(settings: Settings) -> dict[str, Finding]:
    found = await check_opensearch(settings)
    assert "hunter2" not in repr(found)
    assert all(finding.advice for finding in found if finding.level is Level.WARN)
    return {finding.subject.split(" http")[0]: finding for finding in found}


@pytest.mark.parametrize("answer", [(401, ""), (200, "<html>welcome</html>")])
async def test_address_of_something_else_is_said_and_asked_no_more(
    fake: FakeOpenSearch, settings: Settings, answer: tuple[int, Any]
) -> None:
    fake.answers["/"] = answer

    found = await check_opensearch(settings)

    assert [(finding.level, finding.subject.split(" http")[0]) for finding in found] == [(Level.FAIL, "opensearch")] * 2
    assert found[1].text == "no address answers as it should, so nothing else was asked"
    assert "hunter2" not in repr(found)


async def test_user_that_may_only_write_leaves_the_rest_unknown(fake: FakeOpenSearch, settings: Settings) -> None:
    fake.answers = {}

    found = await examine(settings)

    assert found["opensearch"].level is Level.WARN
    assert "status 403" in found["opensearch"].text
    others = [finding for subject, finding in found.items() if subject not in ("opensearch", "rights")]
    assert {finding.level for finding in others} == {Level.WARN}
    assert all("cannot be known: status 403" in finding.text for finding in others)
    assert found["rights"].level is Level.WARN
    assert fake.written == []


@pytest.mark.parametrize("answer", [[], {}, {"nodes": 1}, "x", None])
async def test_strange_answers_leave_it_unknown_too(fake: FakeOpenSearch, settings: Settings, answer: Any) -> None:
    fake.default = (200, answer)

    found = await examine(settings)

    assert found["shards"].level is Level.WARN
    assert "cannot be known" in found["shards"].text
    assert {finding.level for finding in found.values()} <= {Level.OK, Level.WARN}
    assert found["rights"].level is Level.WARN


async def test_clocks_that_are_not_told_are_none(settings: Settings) -> None:
    context = make_context(settings.model_copy(update={"server_port": 0}))

    (finding,) = await asyncio.to_thread(lambda: list(clocks.check(context)))

    assert finding.text.endswith("there is nothing to compare it with")
