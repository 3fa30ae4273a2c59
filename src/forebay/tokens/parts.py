"""The parts of a token (RFC 7515, section 7.1): read strictly, and before its signature is verified.

Two readers that find different things in the same bytes are the cause of many attacks on tokens. So whatever has more
than one reading is refused: a name that stands twice, a number that is none, another spelling of the same base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, NamedTuple, NoReturn

TOKEN_BYTES_MAX = 8 * 1024
"""Bytes of a token. Those of usual providers have 1 to 2 KB; a larger one is refused before anything is decoded."""

KEY_ID_CHARS_MAX = 500
"""Longest `kid`: those that nobody knows are remembered, and there may be many."""

DEPTH_MAX = 32
"""How deep the claims may nest: Python's own limit differs from version to version."""

_FORM = re.compile(rb"([\w-]+)\.([\w-]+)\.[\w-]+")
"""Three parts without padding: bytes match ASCII only."""


class TokenParts(NamedTuple):
    """Head and claims of a token. None of it is to be believed before the signature is verified.

    Attributes:
        algorithm: `alg` of the head.
        key_id: `kid` of the head, None if there is none.
        claims: the members of the payload.
        digest: `digest_token` of it.
    """

    algorithm: str
    key_id: str | None
    claims: dict[str, Any]
    digest: str


def read_parts(token: bytes) -> TokenParts:
    """Return the parts of a token.

    Nothing in the head but `alg` and `kid` is ever used: no key, and no address of a key (`jwk`, `jku`, `x5c`, `x5u`).

    Raises:
        ValueError: it has not the form of a token that we read. Very deeply nested JSON is a `RecursionError`.
    """
    match = _FORM.fullmatch(token) if len(token) <= TOKEN_BYTES_MAX else None
    if match is None:
        raise ValueError("form")
    head, claims = map(_decode, match.groups())
    algorithm, key_id = head.get("alg"), head.get("kid")
    if not isinstance(algorithm, str) or ("kid" in head and not _is_key_id(key_id)):
        raise ValueError("head")
    # We know no extensions. One of them, `b64`, changes the bytes that are signed (RFC 7797).
    if "crit" in head or head.get("b64", True) is not True:
        raise ValueError("extension")
    return TokenParts(algorithm, key_id, claims, digest_token(token))


def digest_token(token: bytes) -> str:
    """Return the digest by which a token is known without being shown: SHA-256 of its signed part, in hex.

    The signature is left out. Whoever holds a token of ES256 can write its signature in a second way (with -s in place
    of s), so that a digest of the whole would not hold a revoked token back.
    """
    return hashlib.sha256(token.rpartition(b".")[0]).hexdigest()


def _is_key_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= KEY_ID_CHARS_MAX


def _decode(part: bytes) -> dict[str, Any]:
    text = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)).decode()
    found = json.loads(text, object_pairs_hook=_refuse_repetition, parse_constant=_refuse_constant)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - a wrong token, as all the others
    _check_depth(found)
    return found


def _check_depth(found: dict[str, Any]) -> None:
    level: list[Any] = [found]
    for _ in range(DEPTH_MAX):
        parents = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for parent in parents for value in parent if isinstance(value, dict | list)]
    if level:
        raise ValueError("depth")


def _refuse_repetition(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("repetition")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
