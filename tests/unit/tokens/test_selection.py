"""The settings decide which tokens are taken."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from forebay.errors import Rejection, SettingsError
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from forebay.tokens.selection import make_verifier
from forebay.tokens.verifier import TokenVerifier
from testbed.servers.identity_provider import make_claims, pem, sign

SECRET, OLD = "a secret that is long enough for HS256" * 2, "an earlier one that is long enough too" * 2
FIRST, SECOND = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, key in {"first": FIRST, "second": SECOND}.items():
        (tmp_path / f"{name}.pem").write_bytes(pem(key))
    return tmp_path


def provider(name: str, **members: Any) -> dict[str, Any]:
    return {"issuer": f"https://{name}.example", "algorithms": ["ES256"], "pem_file": f"{name}.pem"} | members


def verifier_of(*providers: dict[str, Any], **fields: Any) -> TokenVerifier:
    settings = Settings(jwt_secret=SecretStr(SECRET), providers=json.dumps(providers), **fields)
    return make_verifier(settings, SECRET, Counters())[0]


def takes(verifier: TokenVerifier, token: str | bytes, *scopes: str) -> bool:
    try:
        verifier.verify(b"Bearer " + (token if isinstance(token, bytes) else token.encode()), *scopes)
    except Rejection:
        return False
    return True


def ours(secret: str = SECRET, **options: Any) -> str:
    return make_token(secret, "alice", [Scope.WRITE], 60, **options)


def test_tokens_of_an_old_secret_are_taken_beside_those_of_the_new_one() -> None:
    verifier = verifier_of(jwt_secrets_old=json.dumps([OLD]))
    assert takes(verifier, ours())
    assert takes(verifier, ours(OLD))
    assert not takes(verifier, ours("another secret that is long enough for HS256"))
    assert not takes(verifier_of(), ours(OLD))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_our_own_tokens_have_the_algorithm_of_the_settings(algorithm: str) -> None:
    verifier = verifier_of(jwt_algorithm=algorithm)
    taken = [name for name in ("HS256", "HS384", "HS512") if takes(verifier, ours(algorithm=name))]
    assert taken == [algorithm]


def test_our_own_tokens_need_issuer_and_audience_if_they_are_set() -> None:
    verifier = verifier_of(jwt_issuer="us", jwt_audience="events")
    assert takes(verifier, ours(iss="us", aud="events"))
    assert takes(verifier, ours(iss="us", aud=["other", "events"]))
    assert not any(takes(verifier, ours(**claims)) for claims in ({}, {"iss": "us"}, {"aud": "events"}))
    assert not takes(verifier, ours(iss="us", aud="other"))
    assert takes(verifier_of(), ours(iss="anybody", aud="anything"))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_the_leeway_is_that_of_the_settings(claim: str) -> None:
    late = int(time.time()) + (-100 if claim == "exp" else 100)
    token = sign(SECRET.encode(), "HS256", make_claims(**{claim: late}))
    assert takes(verifier_of(jwt_leeway_s=120), token)
    assert not takes(verifier_of(jwt_leeway_s=60), token)


def test_each_provider_signs_in_its_own_name_only() -> None:
    verifier = verifier_of(provider("first"), provider("second"))
    for key, issuer in ((FIRST, "https://first.example"), (SECOND, "https://second.example")):
        other = SECOND if key is FIRST else FIRST
        claims = make_claims(iss=issuer)
        assert verifier.verify(b"Bearer " + sign(key, "ES256", claims)).issuer == issuer
        assert not takes(verifier, sign(other, "ES256", claims))
        assert not takes(verifier, sign(SECRET.encode(), "HS256", claims))
    assert not takes(verifier, sign(FIRST, "ES256", make_claims(iss=None)))
    assert verifier.verify(b"Bearer " + ours().encode()).issuer == ""


def test_a_provider_without_an_audience_takes_any() -> None:
    tokens = [sign(FIRST, "ES256", make_claims(iss="https://first.example", aud=aud)) for aud in (None, "x", ["x"], 7)]
    assert all(takes(verifier_of(provider("first")), token) for token in tokens)
    assert not any(takes(verifier_of(provider("first", audience="events")), token) for token in tokens)


def test_the_scopes_of_a_provider_count_instead_of_those_of_the_token() -> None:
    token = sign(FIRST, "ES256", make_claims(iss="https://first.example", scope="openid admin"))
    assert takes(verifier_of(provider("first")), token, Scope.ADMIN)
    verifier = verifier_of(provider("first", scopes=["events:write"]))
    assert verifier.verify(b"Bearer " + token).scopes == {Scope.WRITE}


def test_only_published_keys_are_fetched() -> None:
    published = provider("second", pem_file=None, jwks_url="https://second.example/jwks.json")
    settings = Settings(jwt_secret=SecretStr(SECRET), providers=json.dumps([provider("first"), published]))
    assert len(make_verifier(settings, SECRET, Counters())[1]) == 1


def test_a_file_without_a_key_is_named_with_its_member(folder: Path) -> None:
    (folder / "second.pem").write_text("nothing")
    with pytest.raises(SettingsError, match=r"^FOREBAY_PROVIDERS\[1\].pem_file: second.pem holds no public key"):
        verifier_of(provider("first"), provider("second"))
