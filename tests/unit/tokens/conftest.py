"""Keys, and a provider that publishes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from forebay.telemetry.counters import Counters
from forebay.tokens.jwks import Intervals, PublishedKeys
from forebay.tokens.provider import Provider, make_own_provider
from forebay.tokens.verifier import TokenVerifier
from testbed.servers.identity_provider import AUDIENCE, FAST, ISSUER, KeyServer, PrivateKey, key_set, publish

SECRET = "a secret that is long enough for HS256"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


class Keys(NamedTuple):
    """The provider's private keys."""

    rsa: rsa.RSAPrivateKey
    ec: ec.EllipticCurvePrivateKey
    ed: ed25519.Ed25519PrivateKey

    def publish(self) -> bytes:
        return key_set(publish(self.rsa, "rsa"), publish(self.ec, "ec"), publish(self.ed, "ed"))

    def of(self, algorithm: str) -> tuple[PrivateKey, str]:
        """Return the key for an algorithm, and its `kid`."""
        kinds: dict[str, tuple[PrivateKey, str]] = {"ES256": (self.ec, "ec"), "EdDSA": (self.ed, "ed")}
        return kinds.get(algorithm, (self.rsa, "rsa"))


class World(NamedTuple):
    """A verifier that takes our own tokens and those of a provider, whose server answers."""

    verifier: TokenVerifier
    server: KeyServer
    published: PublishedKeys
    counters: Counters


def make_keys() -> Keys:
    return Keys(
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    )


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys()


@pytest.fixture(scope="session")
def other_keys() -> Keys:
    return make_keys()


@contextlib.asynccontextmanager
async def running(server: KeyServer, intervals: Intervals = FAST) -> AsyncIterator[World]:
    """Run a verifier with the keys of a server, which may be down; stop both in the end."""
    counters, verifier = Counters(), TokenVerifier(make_own_provider([SECRET]))
    published = PublishedKeys(ISSUER, server.url, ALGORITHMS, verifier.forget, counters, intervals)
    verifier.add(ISSUER, Provider(published, frozenset(ALGORITHMS), ISSUER, AUDIENCE))
    task = asyncio.create_task(published.run())
    try:
        yield World(verifier, server, published, counters)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await server.stop()


@pytest.fixture
async def world(keys: Keys) -> AsyncIterator[World]:
    server = KeyServer(keys.publish())
    await server.start()
    async with running(server) as world:
        yield world
