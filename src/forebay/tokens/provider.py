"""A provider: an issuer of tokens, the keys that it signs with, and the demands on its tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from forebay.tokens.keys import KeySource, make_secret_keys

LEEWAY_S = 30.0


class Provider(NamedTuple):
    """A provider of tokens; we are one ourselves, with our secrets.

    Attributes:
        keys: the keys that it signs with.
        algorithms: those that it signs with.
        issuer: the `iss` that its tokens need; None: none, and any will do.
        audience: the `aud` that they need; None: none, and any will do.
        leeway_s: the most by which its clock may differ from ours.
        scopes: what each of its tokens may do, instead of the scopes in the token.
    """

    keys: KeySource
    algorithms: frozenset[str]
    issuer: str | None = None
    audience: str | None = None
    leeway_s: float = LEEWAY_S
    scopes: frozenset[str] | None = None


def make_own_provider(
    secrets: Iterable[str],
    algorithm: str = "HS256",
    issuer: str | None = None,
    audience: str | None = None,
    leeway_s: float = LEEWAY_S,
) -> Provider:
    """Return ourselves as a provider: tokens are verified with each of these secrets."""
    return Provider(make_secret_keys(secrets, algorithm), frozenset({algorithm}), issuer, audience, leeway_s)
