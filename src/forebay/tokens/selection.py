"""Makes the verifier that the settings ask for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forebay.errors import SettingsError
from forebay.provider_entry import ProviderEntry
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.keys import FixedKeys, KeySource, load_library, read_pem_file
from forebay.tokens.provider import Provider, make_own_provider
from forebay.tokens.verifier import Revocations, TokenVerifier

if TYPE_CHECKING:
    from forebay.tokens.jwks import PublishedKeys


def make_verifier(
    settings: Settings, secret: str, counters: Counters, revocations: Revocations | None = None
) -> tuple[TokenVerifier, Sequence[PublishedKeys]]:
    """Return the verifier, and the keys that are to be fetched while it is in use: each has a `run`.

    Raises:
        SettingsError: a file holds no key that goes with the settings.
    """
    old = (secret.get_secret_value() for secret in settings.jwt_secrets_old)
    own = make_own_provider(
        [secret, *old], settings.jwt_algorithm, settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_s
    )
    verifier = TokenVerifier(own, revocations)
    fetched: list[PublishedKeys] = []
    for number, entry in enumerate(settings.providers):
        keys: KeySource
        if entry.jwks_url is not None:
            # Its HTTP client would stay in the memory of every server (aiohttp).
            from forebay.tokens.jwks import PublishedKeys  # noqa: PLC0415

            keys = published = PublishedKeys(entry.issuer, entry.jwks_url, entry.algorithms, verifier.forget, counters)
            fetched.append(published)
        else:
            keys = _read_file(number, entry)
        scopes = None if entry.scopes is None else frozenset(entry.scopes)
        algorithms = frozenset(entry.algorithms)
        provider = Provider(keys, algorithms, entry.issuer, entry.audience, settings.jwt_leeway_s, scopes)
        verifier.add(entry.issuer, provider)
    return verifier, fetched


def _read_file(number: int, entry: ProviderEntry) -> FixedKeys:
    assert entry.pem_file is not None  # noqa: S101 - the settings hold that
    try:
        return read_pem_file(entry.pem_file, entry.algorithms)
    except SettingsError as error:
        raise SettingsError(f"FOREBAY_PROVIDERS[{number}].pem_file: {error}") from None


def load_providers(settings: Settings) -> None:
    """Import the modules for public keys: processes that are forked later share their memory."""
    if settings.providers:
        load_library()
    if any(entry.jwks_url is not None for entry in settings.providers):
        importlib.import_module("forebay.tokens.jwks")
