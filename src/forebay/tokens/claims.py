"""The claims of a token: checked, and read into what the rest of the server asks for."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeGuard

from forebay.errors import Rejection

TIME_MAX = 253_402_300_799
"""The end of the year 9999. A later time is one in milliseconds: such a token would never end."""


class Scope(enum.StrEnum):
    """A permission that a token carries."""

    WRITE = "events:write"
    READ = "events:read"
    ADMIN = "admin"


OPERATOR_SCOPES = (Scope.READ, Scope.ADMIN)
"""Each of these may read the server's health. A token that ships in an application has neither."""


class Claims(NamedTuple):
    """The content of a verified token.

    Attributes:
        user_id: its `sub`.
        scopes: what it may do.
        valid_until: the time up to which it is taken, in seconds since 1970: its `exp`, and the leeway.
        origins: the origins of the pages that may send with it; None: any, and clients that are no pages.
        formats: the wire formats that it may send, by the names in the registry of formats; None: all.
        rate_per_s: how many events a second it may send; None: as many as the settings allow.
        issuer: the issuer of its provider; empty if it is signed with a secret of our own.
        token_ids: the names by which it can be revoked: its `jti` if it has one, and its digest.
    """

    user_id: str
    scopes: frozenset[str]
    valid_until: float
    origins: frozenset[str] | None = None
    formats: frozenset[str] | None = None
    rate_per_s: float | None = None
    issuer: str = ""
    token_ids: tuple[str, ...] = ()


def unauthorized(detail: str) -> Rejection:
    """Return the refusal of a token (RFC 6750, section 3)."""
    challenge = f'Bearer error="invalid_token", error_description="{detail}"'
    return Rejection(HTTPStatus.UNAUTHORIZED, detail, headers=(("WWW-Authenticate", challenge),))


def check_intended(found: Mapping[str, Any], issuer: str | None, audience: str | None) -> None:
    """Check that a token is from this issuer and meant for this audience, as far as they are given.

    Raises:
        ValueError: it is not.
    """
    if issuer is not None and found.get("iss") != issuer:
        raise ValueError("iss")
    if audience is None:
        return
    # One name, or a list of names of which one is ours (RFC 7519, section 4.1.3).
    named = found.get("aud")
    if not isinstance(named, (str, list)) or not all(isinstance(name, str) for name in named):
        raise ValueError("aud")
    if audience not in ([named] if isinstance(named, str) else named):
        raise ValueError("aud")


def read_end(found: Mapping[str, Any], now: float, leeway_s: float) -> float:
    """Return the time up to which a token is taken.

    `leeway_s` is the most by which the clock that signed it may differ from ours.

    Raises:
        Rejection: 401, it has expired, or has no end.
        ValueError: it is not valid yet, or one of its times is none.
    """
    if found.get("exp") is None:
        raise unauthorized("the token lacks the claim exp")
    times = {name: _read_time(found[name]) for name in ("exp", "nbf", "iat") if name in found}
    end = times["exp"] + leeway_s
    if any(times.get(name, 0) > now + leeway_s for name in ("nbf", "iat")):
        raise ValueError("not yet")
    if end <= now:
        raise unauthorized("the token has expired")
    return end


def _read_time(value: object) -> float:
    if not _is_number(value) or not 0 <= value <= TIME_MAX:
        raise ValueError("time")
    return float(value)


def read_user_id(found: Mapping[str, Any]) -> str:
    """Return the `sub`.

    Raises:
        Rejection: 401, it names nobody.
        ValueError: it is no text, or has half of a surrogate pair in it: no document could hold it.
    """
    user_id = found.get("sub")
    if user_id is None or user_id == "":
        raise unauthorized("the token lacks the claim sub")
    return _read_text(user_id)


def read_scopes(found: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes: `scope` (RFC 8693, section 4.2), or `scp` of some providers; by default `events:write`.

    Raises:
        ValueError: they are neither a string with spaces nor a list.
    """
    for name in ("scope", "scp"):
        if name in found:
            return _read_names(found[name])
    return frozenset({Scope.WRITE})


def read_names(found: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """Return the names in a claim that limits a token; None if it does not have the claim.

    Raises:
        ValueError: they are neither a string with spaces nor a list.
    """
    return _read_names(found[name]) if name in found else None


def read_rate(found: Mapping[str, Any]) -> float | None:
    """Return the claim `rate`, events a second; None if there is none.

    Raises:
        ValueError: it is no number above 0.
    """
    if "rate" not in found:
        return None
    rate = found["rate"]
    if not _is_number(rate) or rate <= 0:
        raise ValueError("rate")
    return float(rate)


def read_token_id(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the `jti`, or nothing.

    Raises:
        ValueError: it is no text.
    """
    return (_read_text(found["jti"]),) if "jti" in found else ()


def _read_names(named: object) -> frozenset[str]:
    if isinstance(named, str):
        return frozenset(named.split())
    if isinstance(named, list):
        return frozenset(map(_read_text, named))
    raise ValueError("names")


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - a wrong token, as all the others
    value.encode()
    return value


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
