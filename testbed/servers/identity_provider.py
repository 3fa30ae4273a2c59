"""An identity provider: it signs tokens with real keys, and publishes the keys by HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from forebay.errors import KeyNotKnown
from forebay.tokens.claims import Claims
from forebay.tokens.jwks import Intervals
from forebay.tokens.verifier import TokenVerifier
from testbed.servers.ports import HOST

ISSUER = "https://id.example"
AUDIENCE = "events"
LATER = 86_400
FAST = Intervals(asking_s=0.1, refresh_s=0.3, refresh_s_min=0.2, refresh_s_max=0.5, timeout_s=0.3)
"""A hundredth of the real times, or less."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def encode(part: bytes | Mapping[str, Any]) -> bytes:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign_bytes(signed: bytes, key: PrivateKey | bytes, algorithm: str) -> bytes:
    """Return the signature of any bytes, also of those that no library would sign."""
    if isinstance(key, bytes):
        return hmac.new(key, signed, getattr(hashlib, f"sha{algorithm[2:]}")).digest()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    digest = getattr(hashes, f"SHA{algorithm[2:]}")()
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm.startswith("PS"):
            return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(signed, padding.PKCS1v15(), digest)
    size = (key.key_size + 7) // 8
    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(key.sign(signed, ec.ECDSA(digest))))


def make_claims(**changes: Any) -> dict[str, Any]:
    """Return good claims of the provider, with changes; None leaves one out."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + LATER} | changes
    return {name: value for name, value in claims.items() if value is not None}


def sign(
    key: PrivateKey | bytes,
    algorithm: str,
    claims: bytes | Mapping[str, Any] | None = None,
    head: bytes | Mapping[str, Any] | None = None,
) -> bytes:
    """Return a token."""
    shown = {"alg": algorithm} if head is None else head
    if isinstance(shown, Mapping) and "alg" not in shown:
        shown = {"alg": algorithm, **shown}
    signed = encode(shown) + b"." + encode(make_claims() if claims is None else claims)
    return signed + b"." + encode(sign_bytes(signed, key, algorithm))


def encode_number(value: int, size: int | None = None) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big")).decode()


def publish(key: PrivateKey, key_id: str | None, **members: Any) -> dict[str, Any]:
    """Return a public key as a provider publishes it."""
    public = key.public_key()
    found: dict[str, Any]
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        found = {"kty": "RSA", "n": encode_number(numbers.n), "e": encode_number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        size, curve = (public.key_size + 7) // 8, {256: "P-256", 384: "P-384", 521: "P-521"}[public.key_size]
        point = public.public_numbers()
        found = {"kty": "EC", "crv": curve, "x": encode_number(point.x, size), "y": encode_number(point.y, size)}
    else:
        found = {"kty": "OKP", "crv": "Ed25519", "x": encode(public.public_bytes_raw()).decode()}
    return found | ({} if key_id is None else {"kid": key_id}) | members


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_set(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class KeyServer:
    """Answers at an address of keys, as the test says.

    Attributes:
        body: the answer.
        answer: makes another answer, if it is set.
        asked_at: when it was asked, by the clock of the loop.
    """

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.headers: dict[str, str] = {}
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.asked_at: list[float] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/jwks.json"

    async def start(self) -> None:
        """Answer from now on, at the same port as before."""
        app = web.Application()
        app.router.add_get("/{any:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be down: connections are refused."""
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=self.body, headers={"Content-Type": "application/json", **self.headers})


async def verify(verifier: TokenVerifier, token: bytes, *scopes: str) -> Claims:
    """Verify a token as the server does: wait for the key if it is not known."""
    try:
        return verifier.verify(b"Bearer " + token, *scopes)
    except KeyNotKnown as error:
        await error.wait()
    return verifier.verify(b"Bearer " + token, *scopes, is_last_try=True)
