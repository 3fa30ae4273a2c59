"""OpenSearch, or whatever answers in its place, is asked whether we may write; nothing is written for that."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forebay.setting_values import SinkHost
from forebay.sinks.opensearch import check
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.advice import advise_connection
from forebay.sinks.opensearch.check import check_access
from forebay.sinks.port import SinkCheck

INDEX = "events_prod_2026-11"
AUTHINFO = "/_plugins/_security/authinfo"


def root(number: str, distribution: str | None = "opensearch") -> dict[str, Any]:
    return {"version": {"number": number} | ({"distribution": distribution} if distribution else {})}


class FakeOpenSearch:
    """Answers by path, and remembers all that was not only read."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, tuple[int, Any]] = {"/": (200, root("3.4.0"))}
        self.written: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        if request.method != "GET":
            self.written.append(f"{request.method} {request.path_qs}")
        status, answer = self.answers.get(request.path, (403, "no permissions"))
        return web.Response(status=status, text=answer if isinstance(answer, str) else json.dumps(answer))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


async def ask(*urls: str) -> SinkCheck:
    found = await check_access(Access(hosts=tuple(SinkHost(url, "admin", "hunter2") for url in urls)), INDEX)
    assert "hunter2" not in repr(found)
    return found


@pytest.mark.parametrize(
    ("answer", "is_usable", "advice"),
    [
        (root("3.4.0"), True, ""),
        (root("2.7.0"), True, ""),
        (root("2.6.9"), False, "use OpenSearch 2.7 or later"),
        (root("1.3.20"), False, "use OpenSearch 2.7 or later"),
        (root("2.19.0"), True, "use a later version"),
        (root("2.19.1"), True, ""),
        (root("3.0.0-beta1"), True, ""),
        (root("8.15.0", None), False, "correct OPEN_SEARCH_DNS"),
    ],
)
async def test_version_is_one_that_events_can_go_to(
    fake: FakeOpenSearch,
    answer: Any,
    advice: str,
    *,
    is_usable: bool,
) -> None:
    fake.answers["/"] = (200, answer)

    (host,), rights = await ask(fake.url)

    assert (host.is_usable, host.advice) == (is_usable, advice)
    assert answer["version"]["number"] in host.text
    assert (rights is not None) is is_usable


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (401, "", "does not know us"),
        (200, "<html>welcome</html>", "not as OpenSearch does: <html>"),
        (200, [1], "status 200"),
        (200, {"version": {"number": 3}}, "status 200"),
        (302, "", "status 302"),
        (502, "Authorization: Basic hunter2", "status 502"),
    ],
)
async def test_anything_else_is_not_usable_and_is_asked_no_more(
    fake: FakeOpenSearch, status: int, answer: Any, said: str
) -> None:
    fake.answers["/"] = (status, answer)

    (host,), rights = await ask(fake.url)

    assert (host.is_usable, rights) == (False, None)
    assert said in host.text
    assert host.advice


async def test_user_that_may_not_ask_for_the_version_may_still_write(fake: FakeOpenSearch) -> None:
    fake.answers = {AUTHINFO: (200, {"user_name": "a", "roles": []})}
    fake.answers[f"/{INDEX}/_create/forebay-doctor"] = (200, {"accessAllowed": True})

    (host,), rights = await ask(fake.url)

    assert (host.is_usable, "status 403" in host.text, bool(host.advice)) == (True, True, True)
    assert rights == ("rights", f"user a with the roles none may write into {INDEX}", "", True)


async def test_host_that_is_away_or_hangs_keeps_nobody_from_asking_another(
    fake: FakeOpenSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "TIMEOUT_S", 2)
    fake.answers[AUTHINFO] = (400, {"error": "no handler found for uri"})
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hosts, rights = await ask(hanging, "http://127.0.0.1:1", fake.url)

    assert [host.is_usable for host in hosts] == [False, False, True]
    assert [host.subject for host in hosts] == [
        f"opensearch {url}" for url in (hanging, "http://127.0.0.1:1", fake.url)
    ]
    assert (hosts[0].text, "overloaded" in hosts[0].advice) == ("no answer in time", True)
    assert "start OpenSearch" in hosts[1].advice
    assert rights is not None
    assert rights.text == "no security plugin: whoever reaches OpenSearch may write"


@pytest.mark.parametrize(
    ("answer", "is_usable", "said"),
    [
        ({"accessAllowed": True, "missingPrivileges": []}, True, "user a with the roles b, c may write into"),
        ({"accessAllowed": False, "missingPrivileges": ["indices:data/write/index"]}, False, "missing: indices:data"),
        ({"accessAllowed": False}, False, "missing: not said which"),
        ({"error": {"reason": "unrecognized parameter: [perform_permission_check]"}}, True, "cannot be known without"),
        ([], True, "cannot be known without"),
        ("x", True, "cannot be known without"),
    ],
)
async def test_right_to_write_is_asked_for_so_that_nothing_is_written(
    fake: FakeOpenSearch,
    answer: Any,
    said: str,
    *,
    is_usable: bool,
) -> None:
    path = f"/{INDEX}/_create/forebay-doctor"
    fake.answers |= {AUTHINFO: (200, {"user_name": "a", "roles": ["b", "c"]}), path: (200, answer)}

    _, rights = await ask(fake.url)

    assert rights is not None
    assert (rights.subject, rights.is_usable, said in rights.text) == ("rights", is_usable, True)
    assert bool(rights.advice) is (not said.endswith("write into"))
    assert fake.written == [f"POST {path}?require_alias=true&perform_permission_check=true"]


@pytest.mark.parametrize("answer", [(403, ""), (200, []), (200, "x"), (200, {"roles": 1})])
async def test_security_plugin_that_does_not_know_us_leaves_the_right_open(
    fake: FakeOpenSearch, answer: tuple[int, Any]
) -> None:
    fake.answers[AUTHINFO] = answer

    _, rights = await ask(fake.url)

    assert rights is not None
    assert (rights.is_usable, bool(rights.advice), fake.written) == (True, True, [])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[SSL: WRONG_VERSION_NUMBER]", "it speaks no TLS"),
        ("Server disconnected", "it may speak TLS"),
        ("The plain HTTP request was sent to HTTPS port", "it may speak TLS"),
        ("[Name or service not known]", "correct the name"),
        ("no answer in time", "overloaded"),
        ("Connect call failed", "start OpenSearch"),
        ("something else", "correct OPEN_SEARCH_DNS, or see the log"),
    ],
)
def test_error_of_a_connection_has_its_advice(text: str, advice: str) -> None:
    assert advice in advise_connection(text)
