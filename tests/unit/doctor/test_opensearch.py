"""Whatever stands at the address, the checkup says what it is and what to change, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.doctor.opensearch import advise, check_up, read_clocks
from forebay.errors import SinkUnreachable
from forebay.findings import Finding, Level
from forebay.settings import Settings

ROOT = {"version": {"distribution": "opensearch", "number": "3.4.0"}}
REFUSED = (403, {"error": {"type": "security_exception", "reason": "no permissions"}, "status": 403})
AUTHINFO = "/_plugins/_security/authinfo"


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


async def look(settings: Settings) -> dict[str, Finding]:
    found = await check_up(settings)
    assert "hunter2" not in repr(found)
    assert all(finding.advice for finding in found if finding.level is Level.WARN)
    return {finding.what.split(" http")[0]: finding for finding in found}


@pytest.mark.parametrize(
    ("answer", "said", "advice"),
    [
        ((401, ""), "does not know us", "correct the credentials"),
        ((200, {"version": {"number": "8.1.0"}}), "not OpenSearch, version 8.1.0", "correct OPEN_SEARCH_DNS"),
        ((200, "<html>welcome</html>"), "not as OpenSearch does: ", "correct OPEN_SEARCH_DNS"),
        ((200, "<html>welcome</html>"), "status 200", "correct OPEN_SEARCH_DNS"),
        ((200, [1]), "status 200", "correct OPEN_SEARCH_DNS"),
        ((400, "The plain HTTP request was sent to HTTPS port"), "plain HTTP", "https:// in OPEN_SEARCH_DNS"),
        ((502, "Authorization: Basic hunter2"), "status 502", "OPEN_SEARCH_DNS"),
    ],
)
async def test_what_is_no_opensearch_for_us_is_said_and_asked_no_more(
    fake: FakeOpenSearch, settings: Settings, answer: tuple[int, Any], said: str, advice: str
) -> None:
    fake.answers["/"] = answer

    found = await check_up(settings)

    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL]
    assert said in found[0].text
    assert advice in found[0].advice
    assert "hunter2" not in repr(found)


async def test_user_that_may_only_write_leaves_the_rest_unknown(fake: FakeOpenSearch, settings: Settings) -> None:
    fake.answers = {}

    found = await look(settings)

    assert found["opensearch"].level is Level.WARN
    assert "status 403" in found["opensearch"].text
    others = [finding for what, finding in found.items() if what not in ("opensearch", "rights")]
    assert {finding.level for finding in others} == {Level.WARN}
    assert all("cannot be known: status 403" in finding.text for finding in others)
    assert found["rights"].level is Level.WARN
    assert fake.written == []


@pytest.mark.parametrize("answer", [[], {}, {"nodes": 1}, "x", None])
async def test_strange_answers_leave_it_unknown_too(fake: FakeOpenSearch, settings: Settings, answer: Any) -> None:
    fake.default = (200, answer)

    found = await look(settings)

    assert found["shards"].level is Level.WARN
    assert "cannot be known" in found["shards"].text
    assert found["rights"].level is Level.WARN


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (
            {"accessAllowed": True, "missingPrivileges": []},
            Level.OK,
            "user a with the roles b, c may write into events_",
        ),
        ({"accessAllowed": False, "missingPrivileges": ["indices:data/write/index"]}, Level.FAIL, "missing: indices:"),
        ({"error": "unrecognized parameter"}, Level.WARN, "cannot be known without writing an event"),
    ],
)
async def test_right_to_write_is_asked_for_so_that_nothing_is_written(
    fake: FakeOpenSearch, settings: Settings, answer: Any, level: Level, said: str
) -> None:
    fake.answers[AUTHINFO] = (200, {"user_name": "a", "roles": ["b", "c"]})
    fake.default = (200, answer)

    found = await look(settings)

    assert (found["rights"].level, said in found["rights"].text) == (level, True)
    (path,) = fake.written
    assert path.startswith("POST /events_local_")
    assert path.endswith("/_create/forebay-doctor?require_alias=true&perform_permission_check=true")


async def test_clocks_that_are_not_told_are_none(settings: Settings) -> None:
    with pytest.raises(SinkUnreachable, match="status 403"):
        await read_clocks(settings)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[SSL: WRONG_VERSION_NUMBER]", "it speaks no TLS"),
        ("Server disconnected", "it may speak TLS"),
        ("[Name or service not known]", "correct the name"),
        ("no answer in time", "overloaded"),
        ("Connect call failed", "start OpenSearch"),
        ("something else", "correct OPEN_SEARCH_DNS, or see the log"),
    ],
)
def test_error_of_a_connection_has_its_advice(text: str, advice: str) -> None:
    assert advice in advise(text)
