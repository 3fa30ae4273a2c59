"""Signatures for AWS, checked against botocore's and by a server that works them out from the request.

The server's way is that of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from forebay.document import Document, EventInfo, encode_entry
from forebay.model import DELIVERED, Address, Entry, Verdict
from forebay.setting_values import AwsService
from forebay.settings import Settings
from forebay.sinks.opensearch.signing import Signer
from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.port import Query

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLE", "hunter2-secret", "hunter2-token"
REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the environment, and no others that this machine may have."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


def sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def encode(part: str) -> str:
    return quote(unquote(part), safe="-_.~")


class VerifyingServer:
    """Takes requests that are signed as AWS wants it, and gives the reason if it refuses one."""

    def __init__(self) -> None:
        self.url = ""
        self.service = "es"
        self.secret = SECRET
        self.verified: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        wrong = self._find_fault(request, body)
        if wrong:
            return web.json_response({"message": wrong}, status=403)
        self.verified.append(f"{request.method} {request.path}")
        if request.path == "/_bulk":
            return web.json_response(
                {"errors": False, "items": [{"create": {"status": 201}}] * (body.count(b"\n") // 2)}
            )
        if request.method == "PUT":
            return web.json_response({"acknowledged": True})
        return web.json_response({"count": 7, "_shards": {"failed": 0}})

    def _find_fault(self, request: web.Request, body: bytes) -> str:
        pattern = r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=(\w+)"
        match = re.fullmatch(pattern, request.headers.get("Authorization", ""))
        if not match:
            return "no signature"
        scope, names, signature = match.groups()
        at = request.headers["X-Amz-Date"]
        date = at[:8]
        if scope != f"{KEY_ID}/{date}/{REGION}/{self.service}/aws4_request":
            return f"scope {scope}"
        age = datetime.now(UTC) - datetime.strptime(at, "%Y%m%dT%H%M%S%z")
        if abs(age.total_seconds()) > 300:
            return "too old"
        if not {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"} <= set(names.split(";")):
            return f"only {names} are signed"
        if request.headers["X-Amz-Content-SHA256"] != hashlib.sha256(body).hexdigest():
            return "another body"
        target, _, query = request.raw_path.partition("?")
        pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&")) if query else []
        canonical = [
            request.method,
            quote(target, safe="/-_.~"),
            "&".join(
                f"{quote(unquote(name), safe='-_.~')}={quote(unquote(value), safe='-_.~')}" for name, value in pairs
            ),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names.split(";")),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
        hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in (date, REGION, self.service, "aws4_request"):
            key = sign(key, part)
        text = "\n".join(["AWS4-HMAC-SHA256", at, scope.partition("/")[2], hashed])
        return "" if sign(key, text).hex() == signature else "another signature"


@pytest.fixture
async def aws() -> AsyncIterator[VerifyingServer]:
    verifying = VerifyingServer()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", verifying.handle)
    async with TestServer(app) as server:
        verifying.url = str(server.make_url("")).rstrip("/")
        yield verifying


def settings_for(url: str, service: str = "es") -> Settings:
    return Settings(OPEN_SEARCH_DNS=url, open_search_aws_region=REGION, open_search_aws_service=service, _env_file=None)


def make_entry(log_id: str) -> Entry:
    now = datetime.now(UTC)
    info = EventInfo(page="/Ünïcode", event="click")
    return encode_entry(Address("events_local_2026-11", log_id), Document(now, now, log_id, "user", info))


@pytest.mark.parametrize("service", ["es", "aoss"])
async def test_every_request_is_signed_so_that_a_server_can_verify_it(aws: VerifyingServer, service: str) -> None:
    aws.service = service
    settings = settings_for(aws.url, service)
    sink = OpenSearchSink(settings)
    try:
        assert await sink.deliver([make_entry("a"), make_entry("b")]) == [DELIVERED] * 2
    finally:
        await sink.close()
    sink = OpenSearchSink(settings)
    try:
        assert await sink.count(Query({"page": "/Ünïcode"})) == 7
    finally:
        await sink.close()
    template, put, bulk, count = aws.verified
    assert (template[:4], put[:4], bulk) == ("GET ", "PUT ", "POST /_bulk")
    assert count == "POST /events_local_*,-events_local_*_*/_count"


async def test_a_wrong_secret_pauses_and_is_not_shown(aws: VerifyingServer) -> None:
    aws.secret = "another"
    sink = OpenSearchSink(settings_for(aws.url))
    try:
        (outcome,) = await sink.deliver([make_entry("a")])
    finally:
        await sink.close()
    assert (outcome.verdict, outcome.error_type, outcome.whole) == (Verdict.PAUSE, "template_refused", True)
    assert "another signature" in outcome.reason
    assert "hunter2" not in repr(outcome)


async def test_no_credentials_pause_and_name_the_ways_to_give_them(
    aws: VerifyingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    sink = OpenSearchSink(settings_for(aws.url))
    try:
        (outcome,) = await sink.deliver([make_entry("a")])
    finally:
        await sink.close()
    assert (outcome.verdict, outcome.error_type, outcome.whole) == (Verdict.PAUSE, "aws_credentials", True)
    assert "AWS_ACCESS_KEY_ID" in outcome.advice
    assert aws.verified == []


async def test_half_of_the_credentials_is_tried_again_with_the_cause(
    aws: VerifyingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    sink = OpenSearchSink(settings_for(aws.url))
    try:
        (outcome,) = await sink.deliver([make_entry("a")])
    finally:
        await sink.close()
    assert (outcome.verdict, outcome.error_type, outcome.whole) == (Verdict.RETRY, "unreachable", True)
    assert "AWS credentials: " in outcome.reason


async def test_the_signature_is_that_of_botocore() -> None:
    body = b"x" * 100_000
    url = "https://one.es.amazonaws.com/events_*,-other/_search?b=2,3&a=*&empty="
    signed = await Signer(REGION, AwsService.ES).sign("POST", url, {"Content-Type": "application/json"}, body)

    hashed = {"Content-Type": "application/json", "X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}
    request = AWSRequest("POST", url.partition("?")[0], hashed, body, {"b": "2,3", "a": "*", "empty": ""})
    auth = SigV4Auth(Credentials(KEY_ID, SECRET, TOKEN), "es", REGION)
    request.context["timestamp"] = signed["X-Amz-Date"]
    request.headers["X-Amz-Date"] = signed["X-Amz-Date"]
    request.headers["X-Amz-Security-Token"] = TOKEN
    text = auth.string_to_sign(request, auth.canonical_request(request))
    assert signed["Authorization"].endswith(f"Signature={auth.signature(text, request)}")
    assert signed["Content-Type"] == "application/json"
