"""An entry of `FOREBAY_PROVIDERS`: an identity provider whose tokens are taken."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ADDRESS_FORM = (
    "an address such as https://issuer.example/jwks.json, without user and password; http only on this machine"
)
LIST_FORM = "a JSON array"

PublicKeyAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

ScopeName = Literal["events:write", "events:read", "admin"]
"""The scopes of tokens, which are defined above the settings."""


def parse_list(value: Any) -> Any:
    """Return the list that a variable holds as JSON.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(LIST_FORM) from None
    if not isinstance(found, list):
        raise ValueError(LIST_FORM)  # noqa: TRY004 - pydantic reads no other
    return found


def _check_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(ADDRESS_FORM) from None
    is_secret = parts.scheme == "https" or (parts.scheme == "http" and _is_here(host or ""))
    if not is_secret or not host or port == 0 or "@" in parts.netloc or parts.fragment or not value.isprintable():
        raise ValueError(ADDRESS_FORM)
    return value


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _need_one(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("one at least")
    return names


class ProviderEntry(BaseModel):
    """An identity provider: its name, its tokens that are for us, and the place of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1)
    audience: str | None = Field(None, min_length=1)
    algorithms: Annotated[tuple[PublicKeyAlgorithm, ...], AfterValidator(_need_one)]
    jwks_url: Annotated[str, AfterValidator(_check_address)] | None = None
    pem_file: Path | None = None
    scopes: Annotated[tuple[ScopeName, ...], AfterValidator(_need_one)] | None = None

    @model_validator(mode="after")
    def _check_source(self) -> ProviderEntry:
        if (self.jwks_url is None) is (self.pem_file is None):
            raise ValueError("either jwks_url or pem_file")
        return self
