"""The description of the interface, as a server shows it: its lines are run as they stand, and their events arrive."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
from jsonschema import Draft202012Validator
from playwright.async_api import BrowserContext
from prometheus_client.parser import text_string_to_metric_families

from forebay.admin.operations import OPERATIONS
from forebay.description import describe_server
from forebay.intake.formats.registry import FORMATS, list_addresses
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from testbed.servers.chromium import ChromiumMissingError, open_chromium
from testbed.servers.fixtures import report_missing
from testbed.servers.forebay import SECRET, ForebayServer
from testbed.traffic.requests import Client, assert_problem
from testbed.traffic.wire import TIMEOUT_S, Answer

EXTRA = "/c"
BODY_BYTES_MAX = 2048
DOCUMENT = describe_server(list_addresses([EXTRA]), metrics_open=False)


class Line(NamedTuple):
    """A line for a shell, and where it stands."""

    path: str
    method: str
    label: str
    source: str


LINES = [
    Line(path, method, sample["label"], sample["source"])
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    for sample in operation["x-codeSamples"]
]
EVENT_LINES = [line for line in LINES if line.path not in OPERATIONS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForebayServer]:
    settings = {
        "FOREBAY_BULK_INTERVAL_S": "0.1",
        "FOREBAY_PATHS_EXTRA": EXTRA,
        "FOREBAY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
        "FOREBAY_REQUEST_TIMEOUT_S": "2",
    }
    with ForebayServer(tmp_path_factory.mktemp("openapi"), settings) as server:
        server.start()
        yield server


@pytest.fixture
def client(server: ForebayServer) -> Client:
    return Client(server, f"Bearer {server.token(scope='events:write events:read')}")


@pytest.fixture
async def chromium() -> AsyncIterator[BrowserContext]:
    try:
        async with open_chromium() as context:
            yield context
            return
    except ChromiumMissingError as error:
        missing = str(error)
    report_missing(missing)


def run(client: Client, line: Line) -> tuple[int, str]:
    """Run a line in a shell; return the status and the type of the answer."""
    token = client.bearer.removeprefix("Bearer ")
    environment = {"PATH": os.environ["PATH"], "FOREBAY": client.server.url, "TOKEN": token}
    options = r"-sS --max-time 20 --output /dev/null --write-out '%{http_code} %{content_type}'"
    script = f'curl() {{ command curl {options} "$@"; }}\n{line.source}'
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, _, content_type = done.stdout.partition(" ")
    return int(status), content_type.partition(";")[0]


def count(client: Client) -> dict[str, float]:
    """Return the events that were accepted and rejected, and those that arrived, by outcome."""
    text = client.get("/metrics", client.bearer).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    counted = {"accepted": 0.0, "rejected": 0.0}
    for sample in samples:
        match = re.fullmatch(r"forebay_(?:events_(accepted|rejected)|outcomes)_total", sample.name)
        if match is not None:
            counted[match[1] or sample.labels["outcome"]] = sample.value
    return counted


@pytest.mark.parametrize("line", EVENT_LINES, ids=lambda line: f"{line.path} {line.label}")
def test_an_example_is_taken_as_it_stands_and_its_events_arrive(client: Client, line: Line) -> None:
    before = count(client)
    status, content_type = run(client, line)
    assert status == 200
    assert content_type in DOCUMENT["paths"][line.path]["post"]["responses"]["200"]["content"]
    after = count(client)
    assert after["accepted"] > before["accepted"]
    assert after["rejected"] == before["rejected"]
    deadline = time.monotonic() + TIMEOUT_S
    while after["accepted"] > sum(after.get(outcome, 0) for outcome in ("delivered", "duplicate")):
        assert time.monotonic() < deadline, after
        time.sleep(0.02)
        after = count(client)


def test_every_format_has_an_example_that_was_sent() -> None:
    for form in FORMATS:
        path = form.example.path or form.paths[0]
        assert any(line.path == path and form.media_type in line.label for line in EVENT_LINES), form.name


@pytest.mark.parametrize("line", [line for line in LINES if line.path in OPERATIONS], ids=lambda line: line.source)
def test_the_other_addresses_answer_as_described(client: Client, line: Line) -> None:
    status, content_type = run(client, line)
    assert status == 200
    answer = DOCUMENT["paths"][line.path][line.method]["responses"]["200"]
    assert line.method == "head" or content_type in answer["content"]


# Refusals


def check_described(answer: Answer, path: str) -> None:
    """Check the status, the type, the header lines and the body of a refusal by the description."""
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    described = responses[str(answer.status)]
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    media = described["content"][answer.headers["content-type"]]
    if answer.headers["content-type"].endswith("json"):
        Draft202012Validator({**media["schema"], "components": DOCUMENT["components"]}).validate(answer.json)
    lines = {name.lower() for name in described.get("headers", {})}
    told = {"www-authenticate", "accept", "accept-encoding", "retry-after", "ratelimit", "ratelimit-policy"}
    assert answer.headers.keys() & told <= lines
    assert lines <= answer.headers.keys() or answer.status in (403, 415)


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if path not in OPERATIONS])
def test_each_address_refuses_as_described(client: Client, path: str) -> None:
    media_types = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
    token = client.bearer.removeprefix("Bearer ")
    address = path.replace("{access_token}", token)
    answer = client.post(path.replace("{access_token}", "x"), Authorization=None)
    assert answer.status == 401
    check_described(answer, path)
    for media_type in media_types:
        check_described(client.post(address, b"\xff{[", Content_Type=media_type), path)
        for status, answer in (
            (415, client.post(address, Content_Type="image/png")),
            (415, client.post(address, Content_Encoding="lzma")),
            (413, client.post(address, b" " * (BODY_BYTES_MAX + 1), Content_Type=media_type)),
        ):
            assert answer.status == status
            check_described(answer, path)


def test_a_sender_is_refused_as_described(client: Client) -> None:
    server = client.server
    reader = Client(server, f"Bearer {server.token(scope='events:read')}")
    slow = Client(server, f"Bearer {make_token(SECRET, 'slow', [Scope.WRITE], 600, rate=0.001)}")
    assert slow.post().status == 200
    for status, answer in ((403, reader.post()), (429, slow.post()), (431, client.post(X_Large="x" * 20_000))):
        assert answer.status == status
        check_described(answer, "/events")
    with client.wire() as wire:
        wire.send(client.request()[:-1])
        answer = wire.answer()
        assert answer.status == 408
        check_described(answer, "/events")


# The two addresses


def test_a_server_shows_the_description_of_its_own_addresses(client: Client) -> None:
    answer = client.get("/openapi.json", client.bearer)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == DOCUMENT


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_nobody_without_a_token_sees_it_and_no_token_is_in_the_log(client: Client, path: str) -> None:
    token = client.bearer.removeprefix("Bearer ")
    assert_problem(client.get(path), 401)
    assert_problem(client.get(f"{path}?access_token={token}x"), 401)
    answer = client.get(f"{path}?access_token={token}")
    assert answer.status == 200
    assert token.encode() not in answer.body
    assert "eyJ" not in client.server.log


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light")])
async def test_a_browser_shows_every_operation_and_asks_for_nothing_else(
    chromium: BrowserContext, client: Client, width: int, scheme: str
) -> None:
    page = await chromium.new_page()
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    seen: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = f"{client.server.url}/docs"
    await page.goto(f"{address}?access_token={client.bearer.removeprefix('Bearer ')}")
    operations = [one["operationId"] for item in DOCUMENT["paths"].values() for one in item.values()]
    for name in operations:
        assert await page.locator(f"article#{name} h3").is_visible()
    # Each line has a button of its own, so the script runs; the token is out of sight.
    assert await page.locator("figure button").count() == 1 + len(LINES)
    assert page.url == address
    assert await page.locator(".server").inner_text() == client.server.url
    # Nothing is wider than the window; long lines scroll in their place.
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen == []
    assert len(requests) == 1


async def test_a_line_of_the_page_can_be_copied(chromium: BrowserContext, client: Client) -> None:
    await chromium.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await chromium.new_page()
    await page.goto(f"{client.server.url}/docs?access_token={client.bearer.removeprefix('Bearer ')}")
    figure = page.locator("article#post_events figure").first
    await figure.locator("button").click()
    await page.get_by_text("Copied").wait_for()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == DOCUMENT["paths"]["/events"]["post"]["x-codeSamples"][0]["source"]
