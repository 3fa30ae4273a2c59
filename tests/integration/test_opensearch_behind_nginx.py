"""A real OpenSearch behind a real nginx: TLS, credentials, limits, and pages that are not OpenSearch's."""

import base64
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Raw

from forebay.document import Document, EventInfo, encode_entry
from forebay.errors import SinkUnreachable
from forebay.model import DELIVERED, Address, Entry, Outcome, Verdict
from forebay.settings import Settings
from forebay.sinks.opensearch.refusals import UNEXPECTED_ANSWER
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.port import Query
from forebay.sinks.sifting import Sifting
from testbed.servers.certificates import Authority
from testbed.servers.fixtures import OpenSearchAddress, StartNginx
from testbed.servers.forebay import ForebayServer, ForebayStartError
from testbed.traffic.index import Index

MakeEntry = Callable[..., Entry]

PASSWORD = "p:ä@s/ %s"
IN_URL = "p%3A%C3%A4%40s%2F%20%25s"


@pytest.fixture
def environment() -> str:
    return f"nginx{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_entry(environment: str) -> MakeEntry:
    def make(log_id: str = "a", param: bytes = b"{}") -> Entry:
        now = datetime.now(UTC)
        info = EventInfo(page="/home", event="click", param=Raw(param))
        return encode_entry(Address(f"events_{environment}_2026-11", log_id), Document(now, now, log_id, "user", info))

    return make


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A file of users for nginx, with one in it."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD.encode(), capture_output=True, check=True
    )
    path = tmp_path / "users"
    path.write_bytes(b"fore bay:" + hashed.stdout)
    return path


def settings_for(url: str, environment: str = "local", **settings: Any) -> Settings:
    secret = "a secret that guards nothing at all"
    return Settings(OPEN_SEARCH_DNS=url, SERVER_ENVIRONMENT=environment, JWT_SECRET=secret, _env_file=None, **settings)


@asynccontextmanager
async def sink_at(url: str, **settings: Any) -> AsyncIterator[OpenSearchSink]:
    sink = OpenSearchSink(settings_for(url, **settings))
    try:
        yield sink
    finally:
        await sink.close()


async def deliver_one(url: str, entry: Entry, **settings: Any) -> Outcome:
    async with sink_at(url, **settings) as sink:
        (outcome,) = await sink.deliver([entry])
        return outcome


# -- TLS


async def test_a_certificate_of_an_authority_of_our_own_is_trusted_once_it_is_named(
    opensearch: OpenSearchAddress, nginx: StartNginx, authority: Authority, make_entry: MakeEntry
) -> None:
    proxy = nginx(opensearch.url, certificate=authority.sign("server"))
    unknown = await deliver_one(proxy.url, make_entry())
    assert (unknown.verdict, unknown.error_type, unknown.whole) == (Verdict.PAUSE, "certificate_refused", True)
    assert "its certificate is not to be trusted" in unknown.reason
    assert "FOREBAY_OPEN_SEARCH_CA_FILE" in unknown.advice
    assert await deliver_one(proxy.url, make_entry(), open_search_ca_file=authority.file) == DELIVERED


async def test_a_certificate_of_somebody_else_with_the_same_name_is_not_trusted(
    opensearch: OpenSearchAddress, nginx: StartNginx, authority: Authority, tmp_path: Path, make_entry: MakeEntry
) -> None:
    (tmp_path / "other").mkdir()
    proxy = nginx(opensearch.url, certificate=Authority(tmp_path / "other").sign("server"))
    outcome = await deliver_one(proxy.url, make_entry(), open_search_ca_file=authority.file)
    assert (outcome.verdict, outcome.error_type) == (Verdict.PAUSE, "certificate_refused")
    assert "certificate" in outcome.reason


@pytest.mark.parametrize(
    "misfit",
    [
        ("127.0.0.1", -timedelta(hours=1), "expired"),
        ("opensearch.example", timedelta(days=1), "127.0.0.1"),
        ("127.0.0.1", timedelta(days=2), "not yet valid"),
    ],
)
async def test_a_certificate_that_does_not_fit_pauses_and_says_why(
    opensearch: OpenSearchAddress,
    nginx: StartNginx,
    authority: Authority,
    make_entry: MakeEntry,
    misfit: tuple[str, timedelta, str],
) -> None:
    host, until, said = misfit
    proxy = nginx(opensearch.url, certificate=authority.sign("server", host, until))
    outcome = await deliver_one(proxy.url, make_entry(), open_search_ca_file=authority.file)
    assert (outcome.verdict, outcome.error_type) == (Verdict.PAUSE, "certificate_refused")
    assert said in outcome.reason


async def test_a_client_certificate_is_shown_if_one_is_wanted(
    opensearch: OpenSearchAddress, nginx: StartNginx, authority: Authority, make_entry: MakeEntry
) -> None:
    wants = f"ssl_client_certificate {authority.file}; ssl_verify_client on;"
    proxy = nginx(opensearch.url, wants, certificate=authority.sign("server"))
    ours = authority.sign("client", "forebay")
    for template, expected in ((True, (Verdict.RETRY, UNEXPECTED_ANSWER)), (False, (Verdict.REFUSED, "http_400"))):
        missing = await deliver_one(
            proxy.url, make_entry(), index_template=template, open_search_ca_file=authority.file
        )
        assert (missing.verdict, missing.error_type) == expected
        assert "No required SSL certificate was sent" in missing.reason
    shown = {"open_search_cert_file": ours.certificate, "open_search_key_file": ours.key}
    assert await deliver_one(proxy.url, make_entry(), open_search_ca_file=authority.file, **shown) == DELIVERED


async def test_plain_http_to_a_server_that_wants_tls_delivers_nothing(
    opensearch: OpenSearchAddress, nginx: StartNginx, authority: Authority, make_entry: MakeEntry
) -> None:
    proxy = nginx(opensearch.url, certificate=authority.sign("server"))
    outcome = await deliver_one(proxy.url.replace("https", "http"), make_entry())
    assert (outcome.verdict, outcome.error_type) == (Verdict.RETRY, UNEXPECTED_ANSWER)
    assert "plain HTTP request was sent to HTTPS port" in outcome.reason


async def test_tls_to_a_server_that_speaks_plain_http_delivers_nothing(
    opensearch: OpenSearchAddress, make_entry: MakeEntry
) -> None:
    outcome = await deliver_one(opensearch.url.replace("http", "https"), make_entry())
    assert (outcome.verdict, outcome.error_type) == (Verdict.RETRY, "unreachable")


# -- credentials


async def test_user_and_password_open_the_way_for_everything_that_asks_opensearch(
    opensearch: OpenSearchAddress,
    nginx: StartNginx,
    authority: Authority,
    users: Path,
    make_entry: MakeEntry,
    environment: str,
) -> None:
    guarded = f'auth_basic "events"; auth_basic_user_file {users};'
    proxy = nginx(opensearch.url, guarded, certificate=authority.sign("server"))
    url = proxy.url.replace("//", f"//fore%20bay:{IN_URL}@")
    assert await deliver_one(url, make_entry(), open_search_ca_file=authority.file) == DELIVERED
    async with sink_at(url, environment=environment, open_search_ca_file=authority.file) as sink:
        assert "there already" in await sink.prepare()
        assert await sink.search(Query({"log_id": "nothing"})) == []
        assert len(await sink.list_months()) == 1


@pytest.mark.parametrize("user", ["", "fore%20bay:wrong-hunter2@", "nobody:hunter2@"])
async def test_a_wrong_password_delivers_nothing_names_the_settings_and_is_not_shown(
    opensearch: OpenSearchAddress, nginx: StartNginx, users: Path, make_entry: MakeEntry, user: str
) -> None:
    proxy = nginx(opensearch.url, f'auth_basic "events"; auth_basic_user_file {users};')
    url = proxy.url.replace("//", f"//{user}")
    for template in (True, False):
        outcome = await deliver_one(url, make_entry(), index_template=template)
        assert (outcome.verdict, outcome.whole) == (Verdict.PAUSE if template else Verdict.REFUSED, True)
        assert outcome.error_type == ("template_refused" if template else "http_401")
        assert "credentials" in outcome.advice
        assert "hunter2" not in repr(outcome)
    async with sink_at(url) as sink:
        with pytest.raises(SinkUnreachable, match="status 401") as raised:
            await sink.search(Query({}))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("setting", "scheme"), [("open_search_api_key", "ApiKey"), ("open_search_bearer", "Bearer")])
async def test_a_key_or_token_goes_with_every_request(
    opensearch: OpenSearchAddress, nginx: StartNginx, make_entry: MakeEntry, setting: str, scheme: str
) -> None:
    secret = base64.b64encode(b"hunter2:hunter2").decode()
    proxy = nginx(opensearch.url, location=f'if ($http_authorization != "{scheme} {secret}") {{ return 403; }}')
    assert await deliver_one(proxy.url, make_entry(), **{setting: secret}) == DELIVERED
    async with sink_at(proxy.url, **{setting: secret}) as sink:
        assert "there already" in await sink.prepare()
    wrong = await deliver_one(proxy.url, make_entry(), index_template=False, **{setting: f"{secret}x"})
    assert (wrong.verdict, wrong.error_type) == (Verdict.REFUSED, "http_403")
    assert "credentials" in wrong.advice
    assert secret not in repr(wrong)


# -- answers of the proxy itself


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_proxy_that_takes_less_than_opensearch_has_bulks_split_down_to_one_event(
    opensearch: OpenSearchAddress, nginx: StartNginx, make_entry: MakeEntry
) -> None:
    proxy = nginx(opensearch.url, "client_max_body_size 64k;")
    entries = [make_entry(str(number), b'{"a":"%b"}' % (b"x" * 10_000)) for number in range(40)]
    entries[7] = make_entry("large", b'{"a":[%b]}' % b",".join([b'"%b"' % (b"x" * 10_000)] * 500))
    async with sink_at(proxy.url) as sink:
        outcomes = await Sifting(sink, lambda _: False).deliver(1, entries, 0)
    assert (outcomes[7].verdict, outcomes[7].error_type) == (Verdict.REFUSED, "http_413")
    assert [*outcomes[:7], *outcomes[8:]] == [DELIVERED] * 39


async def test_a_proxy_whose_opensearch_is_away_is_tried_again(
    nginx: StartNginx, make_entry: MakeEntry, unused_tcp_port: int
) -> None:
    proxy = nginx(f"http://127.0.0.1:{unused_tcp_port}")
    for template in (True, False):
        outcome = await deliver_one(proxy.url, make_entry(), index_template=template)
        assert (outcome.verdict, outcome.error_type, outcome.whole) == (Verdict.RETRY, "http_502", True)


@pytest.mark.parametrize(
    "answer",
    [
        'default_type text/html; return 200 "<html>welcome</html>";',
        "return 204;",
        "return 301 https://127.0.0.1/;",
        "return 400;",
        "return 405;",
        "return 418;",
        "return 500;",
        'return 200 "{}";',
        'return 200 \'{"errors":false,"items":[]}\';',
    ],
)
async def test_a_page_of_the_proxy_delivers_nothing_and_puts_no_template(
    opensearch: OpenSearchAddress, nginx: StartNginx, make_entry: MakeEntry, answer: str
) -> None:
    proxy = nginx(opensearch.url, location=answer)
    for template in (True, False):
        async with sink_at(proxy.url, index_template=template) as sink:
            outcomes = await sink.deliver([make_entry("a"), make_entry("b")])
        is_refused = not template and answer.startswith("return 4")
        assert {outcome.verdict for outcome in outcomes} == {Verdict.REFUSED if is_refused else Verdict.RETRY}
        assert {outcome.error_type == UNEXPECTED_ANSWER for outcome in outcomes} == {not is_refused}
        assert all(outcome.whole and outcome.reason for outcome in outcomes)
        assert all(("not take the index template" in outcome.reason) is template for outcome in outcomes)


# -- the real server


async def test_the_server_delivers_through_tls_with_a_password_and_writes_it_nowhere(
    opensearch: OpenSearchAddress,
    nginx: StartNginx,
    authority: Authority,
    users: Path,
    environment: str,
    tmp_path: Path,
) -> None:
    guarded = f'auth_basic "events"; auth_basic_user_file {users};'
    proxy = nginx(opensearch.url, guarded, certificate=authority.sign("server"))
    settings = {
        "OPEN_SEARCH_DNS": proxy.url.replace("//", f"//fore%20bay:{IN_URL}@"),
        "SERVER_ENVIRONMENT": environment,
        "FOREBAY_OPEN_SEARCH_CA_FILE": str(authority.file),
        "FOREBAY_BULK_INTERVAL_S": "0.2",
        "FOREBAY_LOG_LEVEL": "debug",
    }
    with ForebayServer(tmp_path, settings) as server:
        server.start()
        head = {"Authorization": f"Bearer {server.token()}"}
        event = {"log_id": "a", "page": "/home", "event": "click"}
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{server.url}/events", json=event, headers=head)
            assert answer.status == 200
        assert await Index(opensearch.url, environment).wait_count(1, timeout_s=30) == 1
        assert server.stop() == 0
        assert PASSWORD not in server.log + server.output
        assert IN_URL not in server.log + server.output
        assert "fore bay" not in server.log + server.output


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"FOREBAY_OPEN_SEARCH_CA_FILE": "missing.pem"}, "FOREBAY_OPEN_SEARCH_CA_FILE: missing.pem"),
        ({"FOREBAY_OPEN_SEARCH_API_KEY": "hunter2", "FOREBAY_OPEN_SEARCH_BEARER": "hunter2"}, "_API_KEY"),
    ],
)
def test_the_server_does_not_start_with_credentials_that_cannot_be_used(
    tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    with (
        ForebayServer(tmp_path, {"OPEN_SEARCH_DNS": "https://127.0.0.1:1", **settings}) as server,
        pytest.raises(ForebayStartError) as raised,
    ):
        server.start()
    assert raised.value.exit_code == 2
    assert named in server.log
    assert len(server.log.splitlines()) == 1
    assert "hunter2" not in server.log
