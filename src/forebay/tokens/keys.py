"""The keys that verify signatures: our own secrets, a PEM file, and the keys that a provider publishes.

A key is used with the algorithms of the settings that fit it. The token only chooses among them.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jwt

from forebay.errors import SettingsError

PEM_BYTES_MAX = 100_000
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
"""Least and most bits of an RSA key. A shorter one can be broken (RFC 7518, section 3.3); a longer one takes long."""

KEYS_MAX = 100
"""Keys in one set: a token that names none of them is tried with all."""

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""The algorithms of a curve (RFC 7518, section 3.4, and RFC 8037, section 3.1)."""

# Forebay warns about a short secret itself, once, at start-up.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)


class KeySetUnusable(ValueError):
    """A provider's answer is no set of keys, or has no key for us; the text is the reason, and quotes nothing of it."""


class Key(NamedTuple):
    """A key, and the algorithms that it may be used with.

    Attributes:
        key_id: the `kid` under which its provider publishes it.
        material: the key as PyJWT takes it.
        decode: the function of PyJWT that verifies.
    """

    key_id: str | None
    algorithms: frozenset[str]
    material: Any
    decode: Callable[..., bytes]

    def check(self, token: bytes, algorithm: str) -> None:
        """Check the signature of a token.

        Raises:
            jwt.PyJWTError: it is not of this key; other errors, too, mean that it is none.
        """
        self.decode(token, self.material, algorithms=[algorithm])


class KeySource(Protocol):
    """The keys of one provider."""

    def find(self, key_id: str | None, *, is_last_try: bool) -> Sequence[Key]:
        """Return the keys that a token with this `kid` may be signed with; none if it is signed with none of ours.

        Raises:
            KeyNotKnown: the provider has to be asked first.
            Rejection: 503, it has to be asked and cannot be, or this is the last try.
        """


class FixedKeys:
    """Keys that stay the same until the end: secrets, or the key of a file. The `kid` of a token does not count."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def find(self, key_id: str | None, *, is_last_try: bool) -> Sequence[Key]:
        """Return all keys."""
        del key_id, is_last_try
        return self._keys


def make_secret_keys(secrets: Iterable[str], algorithm: str) -> FixedKeys:
    """Return our own secrets as keys: HS256, HS384 or HS512."""
    return FixedKeys(Key(None, frozenset({algorithm}), secret, jwt.api_jws.decode) for secret in secrets)


def read_pem_file(path: Path, algorithms: Collection[str]) -> FixedKeys:
    """Return the public key in a PEM file.

    Raises:
        SettingsError: there is none, or none that goes with the algorithms. The text begins with the reason.
    """
    library = load_library()
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - only if it is needed
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    kinds: dict[type, Any] = {
        rsa.RSAPublicKey: library.algorithms.RSAAlgorithm,
        ec.EllipticCurvePublicKey: library.algorithms.ECAlgorithm,
        ed25519.Ed25519PublicKey: library.algorithms.OKPAlgorithm,
    }
    try:
        with path.open("rb") as file:
            found = load_pem_public_key(file.read(PEM_BYTES_MAX))
        published = next(kind.to_jwk(found, as_dict=True) for type_, kind in kinds.items() if isinstance(found, type_))
        return FixedKeys([_read_key(published, algorithms, library)])
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - cryptography has errors of many types for a file that is no key
        wanted = " or ".join(algorithms)
        raise SettingsError(
            f"{path} holds no public key for {wanted}, PEM, of at least {RSA_BITS_MIN} bits if RSA"
        ) from None


def read_key_set(body: bytes, algorithms: Collection[str]) -> Sequence[Key]:
    """Return the keys of a JSON Web Key Set (RFC 7517, section 5) that go with one of the algorithms.

    Others are left out: a provider may publish them for something else (`use`, `key_ops`), or for somebody else.

    Raises:
        KeySetUnusable: none is left, or it is no set of keys at all.
    """
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise KeySetUnusable("it is not JSON") from None
    published = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(published, list):
        raise KeySetUnusable("it is no set of keys")
    if len(published) > KEYS_MAX:
        raise KeySetUnusable(f"it has more than {KEYS_MAX} keys")
    library = load_library()
    keys = []
    for one in published:
        try:
            keys.append(_read_key(one, algorithms, library))
        except Exception:  # noqa: BLE001, S112 - whatever is wrong with a key, the others count
            continue
    if not keys:
        raise KeySetUnusable("it has no key for the algorithms of the settings")
    return keys


@functools.cache
def load_library() -> ModuleType:
    """Return PyJWT with cryptography, which our own secrets do not need: `forebay` imports it without (9 MB).

    What it can do is decided at its first import, so it is imported a second time.
    """
    if not jwt.algorithms.has_crypto:
        for name in [name for name in sys.modules if name.partition(".")[0] == "jwt"]:
            del sys.modules[name]
    return importlib.import_module("jwt")


def _read_key(published: Mapping[str, Any], algorithms: Collection[str], library: ModuleType) -> Key:
    """Return a published key.

    Raises:
        Exception: it is not for signatures with these algorithms, is too weak, or is private: then it is no secret.
    """
    kind, key_id = published["kty"], published.get("kid")
    fitting = RSA_ALGORITHMS if kind == "RSA" else CURVE_ALGORITHMS[kind, published["crv"]]
    fitting &= frozenset(algorithms)
    if "alg" in published:
        fitting &= {published["alg"]}
    is_for_signatures = published.get("use", "sig") == "sig" and "verify" in published.get("key_ops", ["verify"])
    if not fitting or not is_for_signatures or "d" in published or not isinstance(key_id, str | None):
        raise KeySetUnusable("not for us")
    readers = {
        "RSA": library.algorithms.RSAAlgorithm,
        "EC": library.algorithms.ECAlgorithm,
        "OKP": library.algorithms.OKPAlgorithm,
    }
    material = readers[kind].from_jwk(published)
    if kind == "RSA" and not RSA_BITS_MIN <= material.key_size <= RSA_BITS_MAX:
        raise KeySetUnusable("not of a size that we take")
    return Key(key_id, fitting, material, library.api_jws.decode)
