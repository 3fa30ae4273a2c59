"""A key is used with the algorithms of the settings that fit it, and with no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from forebay.errors import Rejection, SettingsError
from forebay.provider_entry import PublicKeyAlgorithm
from forebay.tokens.keys import CURVE_ALGORITHMS, RSA_ALGORITHMS, read_key_set, read_pem_file
from forebay.tokens.provider import Provider, make_own_provider
from forebay.tokens.verifier import TokenVerifier
from testbed.servers.identity_provider import AUDIENCE, ISSUER, PrivateKey, key_set, make_claims, pem, publish, sign

RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, PrivateKey] = {
    **dict.fromkeys(sorted(RSA_ALGORITHMS), RSA),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
OTHER_ALGORITHM = {"RSA": "ES256", "EC": "RS256", "OKP": "ES256"}


def test_every_algorithm_of_the_settings_has_keys() -> None:
    assert set(KEYS) == set(get_args(PublicKeyAlgorithm)) == RSA_ALGORITHMS.union(*CURVE_ALGORITHMS.values())


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_key_of_a_file_verifies_what_its_other_half_has_signed(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS[algorithm]))
    verifier = TokenVerifier(make_own_provider(["a secret that is long enough for HS256"]))
    keys = read_pem_file(path, [algorithm])
    verifier.add(ISSUER, Provider(keys, frozenset({algorithm}), ISSUER, AUDIENCE))

    for head in ({}, {"kid": "any"}):
        assert verifier.verify(b"Bearer " + sign(KEYS[algorithm], algorithm, head=head)).issuer == ISSUER
    for claims in (make_claims(aud="other"), make_claims(iss="other")):
        with pytest.raises(Rejection, match="not valid"):
            verifier.verify(b"Bearer " + sign(KEYS[algorithm], algorithm, claims))


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("named", [True, False])
def test_a_published_key_goes_with_its_own_algorithms_only(
    algorithm: str,
    named: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    published = publish(KEYS[algorithm], "one", **({"alg": algorithm} if named else {}))
    [key] = read_key_set(key_set(published), sorted(KEYS))
    if named:
        assert key.algorithms == {algorithm}
    elif published["kty"] == "RSA":
        assert key.algorithms == RSA_ALGORITHMS
    else:
        assert key.algorithms == CURVE_ALGORITHMS[published["kty"], published["crv"]]
    with pytest.raises(ValueError, match="no key for the algorithms"):
        read_key_set(key_set(published), [OTHER_ALGORITHM[published["kty"]]])


def test_keys_with_one_kid_are_all_kept() -> None:
    keys = read_key_set(key_set(publish(RSA, "one"), publish(KEYS["ES256"], "one")), ["RS256", "ES256"])
    assert [key.key_id for key in keys] == ["one", "one"]


PRIVATE = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BAD_FILES = {
    "nothing": b"",
    "text": b"key",
    "a private key": PRIVATE,
    "a weak key": pem(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - weak on purpose
    "another kind of key": pem(KEYS["ES256"]),
    "another curve": ed448.Ed448PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "DER": RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_without_a_fitting_public_key_is_a_wrong_setting(name: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(SettingsError) as raised:
        read_pem_file(path, ["RS256", "EdDSA"])
    assert str(raised.value) == f"{path} holds no public key for RS256 or EdDSA, PEM, of at least 2048 bits if RSA"


def test_a_file_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        read_pem_file(tmp_path / "key.pem", ["RS256"])


CODE = """
import sys
from pathlib import Path
from typing import get_args
import forebay
from forebay.tokens.keys import load_library, read_key_set, read_pem_file
from forebay.tokens.making import make_token
from forebay.tokens.provider import Provider, make_own_provider
from forebay.tokens.verifier import TokenVerifier

secret = "a secret that is long enough for HS256"
verifier = TokenVerifier(make_own_provider([secret]))
ours = make_token(secret, "us", ["events:write"], 60).encode()
assert verifier.verify(b"Bearer " + ours).user_id == "us"
assert "cryptography" not in sys.modules
verifier.add("https://id.example", Provider(read_pem_file(Path(sys.argv[1]), ["ES256"]), frozenset({"ES256"})))
assert "cryptography" in sys.modules
print(verifier.verify(b"Bearer " + sys.argv[2].encode()).user_id, verifier.verify(b"Bearer " + ours).user_id)
assert load_library() is load_library()
"""


def test_cryptography_is_loaded_for_a_public_key_and_not_before(tmp_path: Path) -> None:
    """In a process of its own, since the tests themselves have cryptography."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS["ES256"]))
    token = sign(KEYS["ES256"], "ES256").decode()
    ran = subprocess.run([sys.executable, "-c", CODE, str(path), token], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("alice us\n", "")
