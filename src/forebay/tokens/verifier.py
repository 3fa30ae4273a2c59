"""Verifies the token of each request.

A verified token is cached, so that a client that sends the same one with each event costs one verification. The cache
is limited in tokens and in bytes, and a cached token expires like any other. It is emptied if a token is revoked or a
key is gone.
"""

from __future__ import annotations

import contextlib
import time
from http import HTTPStatus
from typing import Any, Protocol

from forebay.errors import KeyNotKnown, Rejection
from forebay.tokens.claims import (
    Claims,
    check_intended,
    read_end,
    read_names,
    read_rate,
    read_scopes,
    read_token_id,
    read_user_id,
    unauthorized,
)
from forebay.tokens.parts import TokenParts, read_parts
from forebay.tokens.provider import Provider

CACHE_TOKENS_MAX = 10_000
CACHE_BYTES_MAX = 4 * 1024 * 1024
"""One valid token can be sent in thousands of ways, each with more spaces before it."""

BEARER = b"bearer "


class Revocations(Protocol):
    """Knows the tokens that are not taken any more, although they are valid.

    Attributes:
        version: changes with every revocation.
    """

    version: int

    def is_revoked(self, token_ids: tuple[str, ...], user_id: str) -> bool:
        """Return whether a token with one of these names, or of this user, is revoked."""


class NoRevocations:
    """Revokes nothing."""

    version = 0

    def is_revoked(self, token_ids: tuple[str, ...], user_id: str) -> bool:
        """Return that it is not revoked."""
        del token_ids, user_id
        return False


class TokenVerifier:
    """Verifies `Authorization` headers.

    Attributes:
        generation: changes as soon as a key is gone. Whoever keeps claims has to ask again then.
    """

    def __init__(self, own: Provider, revocations: Revocations | None = None) -> None:
        """Take the tokens that are signed with our own secrets, unless they are revoked."""
        self.generation = 0
        self._own = own
        self._others: dict[str, Provider] = {}
        self._revocations = revocations or NoRevocations()
        self._version = self._revocations.version
        self._cache: dict[bytes, Claims] = {}
        self._cached_bytes = 0

    def add(self, issuer: str, provider: Provider) -> None:
        """Take the tokens of another provider, too. Those that name this issuer are verified with its keys only."""
        self._others[issuer] = provider

    def forget(self) -> None:
        """Verify every token again: a key is gone."""
        self.generation += 1
        self._clear_cache()

    def verify(self, authorization: bytes | None, *scopes: str, is_last_try: bool = False) -> Claims:
        """Return the claims of a token that has one of `scopes`. If none is given, any valid token will do.

        Raises:
            KeyNotKnown: the provider has to be asked for the key. Wait for it, and then try for the last time.
            Rejection: 401 if the token is missing or not valid, 403 if it has none of the scopes, each with
                `WWW-Authenticate` (RFC 6750, section 3); 503 if it may be valid, and its provider does not answer.
        """
        claims = self._cache.get(authorization) if authorization is not None else None
        if claims is None or self._version != self._revocations.version:
            claims = self._read(authorization, is_last_try=is_last_try)
        elif claims.valid_until <= time.time():
            self._clear_cache()
            raise unauthorized("the token has expired")
        if scopes and claims.scopes.isdisjoint(scopes):
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'
            detail = f"the token does not have the scope {' or '.join(scopes)}"
            raise Rejection(HTTPStatus.FORBIDDEN, detail, headers=(("WWW-Authenticate", challenge),))
        return claims

    def _read(self, authorization: bytes | None, *, is_last_try: bool) -> Claims:
        if self._version != self._revocations.version:
            self._version = self._revocations.version
            self._clear_cache()
        if authorization is None:
            challenge = ("WWW-Authenticate", "Bearer")
            raise Rejection(HTTPStatus.UNAUTHORIZED, "a bearer token is required", headers=(challenge,))
        if authorization[: len(BEARER)].lower() != BEARER:
            raise unauthorized("the Authorization header is not of the form: Bearer <token>")
        claims = self._decode(authorization[len(BEARER) :].strip(), is_last_try=is_last_try)
        if self._revocations.is_revoked(claims.token_ids, claims.user_id):
            raise unauthorized("the token was revoked")
        if len(self._cache) >= CACHE_TOKENS_MAX or self._cached_bytes + len(authorization) > CACHE_BYTES_MAX:
            self._clear_cache()
        self._cache[authorization] = claims
        self._cached_bytes += len(authorization)
        return claims

    def _clear_cache(self) -> None:
        # The tokens in use come back at the cost of one verification each.
        self._cache.clear()
        self._cached_bytes = 0

    def _decode(self, token: bytes, *, is_last_try: bool) -> Claims:
        try:
            parts = read_parts(token)
            issuer = parts.claims.get("iss")
            provider = self._others.get(issuer, self._own) if isinstance(issuer, str) else self._own
            # The claims first: one that is not valid anyway need not wait for a key.
            claims = _read_claims(parts, provider)
            _check_signature(token, parts, provider, is_last_try=is_last_try)
        except (KeyNotKnown, Rejection):
            raise
        except Exception:  # noqa: BLE001 - the keys were checked before, so any error here is the token's fault
            # To name the check that failed would help an attacker more than a developer.
            raise unauthorized("the token is not valid") from None
        return claims


def _check_signature(token: bytes, parts: TokenParts, provider: Provider, *, is_last_try: bool) -> None:
    """Check that one of the provider's keys has signed a token.

    Raises:
        ValueError: none has.
        KeyNotKnown: the key may be a new one of the provider.
    """
    if parts.algorithm not in provider.algorithms:
        raise ValueError("algorithm")
    for key in provider.keys.find(parts.key_id, is_last_try=is_last_try):
        if parts.algorithm not in key.algorithms:
            continue
        # Another of the keys may be the right one. No failure is kept: its frames lead back to the request.
        with contextlib.suppress(Exception):
            key.check(token, parts.algorithm)
            return
    raise ValueError("signature")


def _read_claims(parts: TokenParts, provider: Provider) -> Claims:
    found: dict[str, Any] = parts.claims
    check_intended(found, provider.issuer, provider.audience)
    end = read_end(found, time.time(), provider.leeway_s)
    return Claims(
        read_user_id(found),
        provider.scopes if provider.scopes is not None else read_scopes(found),
        end,
        read_names(found, "origins"),
        read_names(found, "formats"),
        read_rate(found),
        provider.issuer or "",
        (*read_token_id(found), parts.digest),
    )
