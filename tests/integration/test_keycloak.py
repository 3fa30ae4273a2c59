"""Tokens of a real Keycloak: its keys rotate, and it is slow, down, and asked for keys that it does not have.

A provider that lies (HTML, a huge answer, wrong keys) is a server of the tests, in
`tests/unit/tokens/test_published_keys.py`: Keycloak does not.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.servers.curious_forebay import CuriousForebay
from testbed.servers.faulty_proxy import FaultyProxy, ProxiedRequest, pass_on
from testbed.servers.forebay import ForebayServer
from testbed.servers.identity_provider import make_claims, sign
from testbed.servers.keycloak import KeycloakServer
from testbed.servers.keycloak_realm import KEY_PROVIDERS, Realm
from testbed.traffic.requests import EVENT, Client, assert_created, assert_problem
from testbed.traffic.wire import Answer

pytestmark = pytest.mark.xdist_group("Keycloak")

AUDIENCE = "forebay"
WRITE = "events:write"
LIMIT_S = 60
"""Most seconds until Forebay has seen a change at Keycloak; a busy machine is slow."""

AWAY_S = int(os.environ.get("FOREBAY_TEST_AWAY_S", "0"))
"""How long Keycloak is away; the times of fetching are the real ones then. Else a few fetches at short ones fail."""

ROUNDS = 5

FORGED = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def realm(keycloak: KeycloakServer) -> Realm:
    """A realm with a client for each algorithm, which may send events."""
    realm = Realm(keycloak.url, "shop")
    realm.add_scope(WRITE, AUDIENCE)
    realm.add_scope("events:none", AUDIENCE)
    for algorithm in KEY_PROVIDERS:
        if algorithm != "RS256":
            realm.add_key(algorithm)
        realm.add_client(algorithm, algorithm, WRITE)
    return realm


def settings(realm: Realm, keys_url: str) -> dict[str, str]:
    provider = {
        "issuer": realm.issuer,
        "audience": AUDIENCE,
        "algorithms": list(KEY_PROVIDERS),
        "jwks_url": f"{keys_url}{realm.keys_path}",
    }
    return {"FOREBAY_PROVIDERS": json.dumps([provider]), "FOREBAY_BULK_INTERVAL_S": "0.2"}


def read(token: str, part: int) -> Any:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[part] + "=="))


def forge(realm: Realm, key_id: str) -> str:
    """Return a token that is good but for its key, which nobody has published."""
    claims = make_claims(iss=realm.issuer, aud=AUDIENCE, sub="mallory")
    return sign(FORGED, "ES256", claims, {"kid": key_id}).decode()


def post(client: Client, token: str) -> Answer:
    return client.post(Authorization=f"Bearer {token}")


def post_until(client: Client, token: str, *statuses: int) -> Answer:
    """Send until the answer is another one than these."""
    deadline = time.monotonic() + LIMIT_S
    while (answer := post(client, token)).status in statuses:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    return answer


def count_failures(client: Client) -> int:
    """Return how often Keycloak's keys could not be fetched."""
    metrics = client.get("/metrics", f"Bearer {client.server.token(scope='admin')}").body.decode()
    found = re.search(r"^forebay_key_fetch_failures_total\{.*\} (\d+)", metrics, re.MULTILINE)
    return int(found[1]) if found else 0


def wait_for_failure(client: Client) -> None:
    """Wait until Keycloak's keys could not be fetched once more."""
    before, deadline = count_failures(client), time.monotonic() + LIMIT_S
    while count_failures(client) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_tokens_of_each_algorithm_are_taken(keycloak: KeycloakServer, realm: Realm, tmp_path: Path) -> None:
    with ForebayServer(tmp_path, settings(realm, keycloak.url)) as server:
        client = Client(server)
        server.start()
        for algorithm in KEY_PROVIDERS:
            token = realm.token(algorithm)
            assert read(token, 0)["alg"] == algorithm
            log_id = assert_created(post_until(client, token, 503))
            assert client.document(log_id)["user_id"] == read(token, 1)["sub"]
            signed, _, signature = token.rpartition(".")
            assert_problem(post(client, f"{signed}.{signature[::-1]}"), 401)


def test_tokens_that_are_meant_for_others_are_refused(keycloak: KeycloakServer, realm: Realm, tmp_path: Path) -> None:
    realm.add_client("reader", "RS256", "events:none")
    realm.add_client("stranger", "RS256", "profile")
    with ForebayServer(tmp_path, settings(realm, keycloak.url)) as server:
        client = Client(server)
        server.start()
        assert_created(post_until(client, realm.token("RS256"), 503))
        assert_problem(post(client, realm.token("reader")), 403)
        assert_problem(post(client, realm.token("stranger")), 401)


def test_keys_rotate(keycloak: KeycloakServer, realm: Realm, tmp_path: Path) -> None:
    first = realm.add_key("ES256")
    used, unused = realm.token("ES256"), realm.token("ES256")
    with CuriousForebay(tmp_path, settings(realm, keycloak.url)) as server:
        client = Client(server)
        server.start()
        assert_created(post_until(client, used, 503))

        realm.add_key("ES256")
        new = realm.token("ES256")
        assert read(new, 0)["kid"] != read(used, 0)["kid"]
        assert_created(post(client, new))
        assert_created(post(client, used))

        realm.disable_key(first)
        assert_problem(post_until(client, used, 200), 401)
        assert_problem(post(client, unused), 401)
        assert_created(post(client, realm.token("ES256")))


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [
        pytest.param(KeycloakServer.pause, KeycloakServer.resume, id="slow"),
        # In order, or the database would lose the key that was made last.
        pytest.param(KeycloakServer.stop, KeycloakServer.start, id="down"),
    ],
)
def test_good_tokens_are_taken_while_keycloak_is(
    keycloak: KeycloakServer,
    realm: Realm,
    tmp_path: Path,
    leave: Callable[[KeycloakServer], None],
    come_back: Callable[[KeycloakServer], None],
) -> None:
    # A fetch that failed is tried again after ten seconds.
    good = [realm.token("RS256") for _ in range(1 + ROUNDS + AWAY_S // 10)]
    kind = ForebayServer if AWAY_S else CuriousForebay
    with kind(tmp_path, settings(realm, keycloak.url)) as server:
        client = Client(server)
        server.start()
        assert_created(post_until(client, good.pop(), 503))

        # Asleep, so that it cannot see the new key before Keycloak is away.
        server.signal(signal.SIGSTOP)
        realm.add_key("ES256")
        late = realm.token("ES256")
        leave(keycloak)
        left_at = time.monotonic()
        try:
            server.signal(signal.SIGCONT)
            for number in itertools.count():
                if number >= ROUNDS and time.monotonic() > left_at + AWAY_S:
                    break
                answer = post(client, forge(realm, f"unknown {number}") if number % 2 else late)
                assert_problem(answer, 503)
                assert answer.headers["retry-after"] == "10"
                wait_for_failure(client)
                # Each is new, and must be verified.
                assert_created(post(client, good.pop()))
        finally:
            come_back(keycloak)

        assert_created(post_until(client, late, 503))
        assert_problem(post(client, forge(realm, "unknown 1")), 401)
        assert_created(post(client, realm.token("RS256")))


async def test_a_flood_of_unknown_keys_asks_once_in_ten_seconds(
    keycloak: KeycloakServer, realm: Realm, tmp_path: Path
) -> None:
    asked_at: list[float] = []

    async def count(request: ProxiedRequest) -> web.StreamResponse:
        asked_at.append(time.monotonic())
        return await pass_on(request)

    async def post_forged(session: aiohttp.ClientSession, key_ids: Iterator[str]) -> None:
        while True:
            flood.append(await post_as(session, forge(realm, next(key_ids))))

    async def post_as(session: aiohttp.ClientSession, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with session.post(f"{server.url}/events", data=EVENT, headers=headers) as response:
            await response.read()
            return response.status

    flood: list[int] = []
    with FaultyProxy(keycloak.url) as proxy, ForebayServer(tmp_path, settings(realm, proxy.url)) as server:
        proxy.behave(count)
        await asyncio.to_thread(server.start)
        client = Client(server)
        assert_created(await asyncio.to_thread(post_until, client, realm.token("RS256"), 503))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(LIMIT_S):
            floods = [(f"unknown {n} {m}" for m in itertools.count()) for n in range(100)]
            senders = [asyncio.create_task(post_forged(session, kids)) for kids in (*floods, itertools.repeat("same"))]
            await asyncio.to_thread(realm.add_key, "EdDSA")
            late = asyncio.create_task(post_as(session, await asyncio.to_thread(realm.token, "EdDSA")))
            while len(asked_at) < 3:
                # With a new token, which must be verified.
                assert await post_as(session, await asyncio.to_thread(realm.token, "RS256")) == 200
            assert await late == 200
            for sender in senders:
                sender.cancel()
            ended = await asyncio.gather(*senders, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    assert len(flood) > 100
    assert set(flood) == {401}
    # A question may have been on its way for a moment longer than the next one.
    assert asked_at[-1] - asked_at[0] > 10 * (len(asked_at) - 1) - 2
