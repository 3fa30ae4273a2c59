"""Tokens of an identity provider, at a real server that fetches real keys."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.servers.forebay import SECRET, ForebayServer
from testbed.servers.identity_provider import AUDIENCE, ISSUER, KeyServer, key_set, make_claims, publish, sign
from testbed.traffic.requests import Client, assert_created, assert_problem
from testbed.traffic.wire import Answer

OLD, NEW = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_tokens_of_a_provider_are_taken_as_long_as_its_keys_are_known(tmp_path: Path, workers: str) -> None:
    keys = KeyServer(key_set(publish(OLD, "old")))
    await keys.start()
    provider = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks_url": keys.url}
    settings = {"FOREBAY_PROVIDERS": json.dumps([provider]), "FOREBAY_WORKERS": workers}

    def sign_as(key: ec.EllipticCurvePrivateKey, key_id: str, **claims: object) -> str:
        return sign(key, "ES256", make_claims(**claims), {"kid": key_id}).decode()

    with ForebayServer(tmp_path, settings) as server:
        client = Client(server)

        async def post(token: str) -> Answer:
            return await asyncio.to_thread(client.post, Authorization=f"Bearer {token}")

        async def post_until_known(token: str) -> Answer:
            """Send as a client does that is told to come again."""
            async with asyncio.timeout(30):
                while (answer := await post(token)).status == 503:
                    assert answer.headers["retry-after"] == "10"
                    await asyncio.sleep(0.2)
            return answer

        await asyncio.to_thread(server.start)
        assert_created(await post_until_known(sign_as(OLD, "old")))
        assert_problem(await post(sign_as(OLD, "old", aud="other")), 401)
        assert_problem(await post(sign_as(NEW, "old", sub="mallory")), 401)
        assert_problem(await post(sign_as(OLD, "old", scope="openid")), 403)
        assert_created(await post(server.token()))

        keys.body = key_set(publish(OLD, "old"), publish(NEW, "new"))
        assert_created(await post_until_known(sign_as(NEW, "new")))
        await keys.stop()
        assert_created(await post(sign_as(OLD, "old", sub="bob")))
        # Each worker asks for itself.
        assert len(keys.asked_at) <= 3 * int(workers)

        metrics = await asyncio.to_thread(client.get, "/metrics", f"Bearer {server.token(scope='admin')}")
        assert f'forebay_key_fetches_total{{issuer="{ISSUER}"'.encode() in metrics.body
        await asyncio.to_thread(server.stop)
        assert "mallory" not in server.log
        assert not any(part in server.log for part in sign_as(OLD, "old").split(".")[:1])
        assert SECRET not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_provider_whose_file_cannot_be_read_keeps_the_server_from_starting(tmp_path: Path, workers: str) -> None:
    provider = {"issuer": ISSUER, "algorithms": ["ES256"], "pem_file": "missing.pem"}
    settings = {"FOREBAY_PROVIDERS": json.dumps([provider]), "FOREBAY_WORKERS": workers}
    with (
        ForebayServer(tmp_path, settings) as server,
        pytest.raises(Exception, match=r"FOREBAY_PROVIDERS\[0\].pem_file: missing.pem cannot be read") as raised,
    ):
        server.start()
    assert getattr(raised.value, "exit_code", None) == 2
