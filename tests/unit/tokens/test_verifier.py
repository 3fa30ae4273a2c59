"""Tokens and their rights: a token is HS256 with our key, names somebody, and ends."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from forebay.errors import Rejection
from forebay.tokens import verifier as verifier_module
from forebay.tokens.claims import Scope
from forebay.tokens.keys import FixedKeys, Key, read_key_set
from forebay.tokens.making import make_token
from forebay.tokens.parts import digest_token
from forebay.tokens.provider import LEEWAY_S, Provider, make_own_provider
from forebay.tokens.verifier import TokenVerifier
from testbed.servers.identity_provider import ISSUER, key_set, publish
from testbed.servers.identity_provider import sign as es256

SECRET = "a secret that is long enough for HS256"
LATER = 3600


def encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def sign(payload: bytes, header: bytes = b'{"alg":"HS256"}', secret: bytes = SECRET.encode()) -> bytes:
    """Sign any payload, also one that no library would sign."""
    signed = encode(header) + b"." + encode(payload)
    return b"Bearer " + signed + b"." + encode(hmac.new(secret, signed, hashlib.sha256).digest())


def token(**claims: Any) -> bytes:
    return sign(json.dumps({"sub": "alice", "exp": int(time.time()) + LATER} | claims).encode())


def refusal(authorization: bytes | None, *scopes: str) -> Rejection:
    with pytest.raises(Rejection) as raised:
        TokenVerifier(make_own_provider([SECRET])).verify(authorization, *scopes)
    return raised.value


def test_a_valid_token_names_its_user_its_scopes_and_its_end() -> None:
    end = int(time.time()) + 60
    claims = TokenVerifier(make_own_provider([SECRET])).verify(token(exp=end), Scope.WRITE)
    assert (claims.user_id, sorted(claims.scopes), claims.valid_until) == (
        "alice",
        ["events:write"],
        end + LEEWAY_S,
    )


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("events:read", {"events:read"}),
        ("events:read admin", {"events:read", "admin"}),
        (["events:write", "admin"], {"events:write", "admin"}),
        ("", set()),
        ([], set()),
    ],
)
def test_scopes_are_a_string_with_spaces_or_a_list(scope: object, granted: set[str]) -> None:
    assert TokenVerifier(make_own_provider([SECRET])).verify(token(scope=scope)).scopes == granted


def test_a_token_without_scopes_may_send_events_and_nothing_else() -> None:
    TokenVerifier(make_own_provider([SECRET])).verify(token(), Scope.WRITE)
    assert refusal(token(), Scope.READ, Scope.ADMIN).status == 403


def test_one_of_the_wanted_scopes_suffices() -> None:
    TokenVerifier(make_own_provider([SECRET])).verify(token(scope="admin"), Scope.READ, Scope.ADMIN)


def test_a_token_that_does_not_suffice_is_told_which_scope_it_lacks() -> None:
    error = refusal(token(scope="events:read"), Scope.WRITE)
    assert error.status == 403
    assert "events:write" in error.detail
    assert error.headers == (("WWW-Authenticate", 'Bearer error="insufficient_scope", scope="events:write"'),)


def test_no_token_is_answered_with_a_plain_challenge() -> None:
    error = refusal(None)
    assert error.status == 401
    assert error.headers == (("WWW-Authenticate", "Bearer"),)


@pytest.mark.parametrize("authorization", [b"", b"Bearer", b"Basic YTpi", b"Token x", b"bearer\tx"])
def test_an_authorization_that_is_no_bearer_token_is_refused(authorization: bytes) -> None:
    error = refusal(authorization)
    assert error.status == 401
    assert error.headers[0][1].startswith('Bearer error="invalid_token"')


@pytest.mark.parametrize("spelling", [b"Bearer ", b"bearer ", b"BEARER   "])
def test_the_scheme_is_known_in_any_case_and_before_any_number_of_spaces(spelling: bytes) -> None:
    assert TokenVerifier(make_own_provider([SECRET])).verify(token().replace(b"Bearer ", spelling)).user_id == "alice"


@pytest.mark.parametrize(
    "authorization",
    [
        b"Bearer ",
        b"Bearer x",
        b"Bearer a.b.c",
        b"Bearer ...",
        b"Bearer \xff\xfe.\xff.\xff",
        b"Bearer " + "é.é.é".encode(),
        token() + b"x",
        token() + b" x",
        token()[:-2],
        token(scope={"events": "write"}),
        token(scope=None),
        token(scope=5),
        token(sub=5),
        token(sub=["alice"]),
        token(sub="half of an emoji: \ud83d"),
        token(exp="soon"),
        token(exp=[]),
        token(exp=10**400),
        token(nbf=int(time.time()) + LATER),
        sign(b'{"sub":"alice","exp":1e400}'),
        sign(b'{"sub":"alice","exp":NaN}'),
        sign(b"[]"),
        sign(b"1"),
        sign(b""),
        sign(b"\xff"),
        sign(b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=range(26),
)
def test_a_malformed_token_is_refused_and_breaks_nothing(authorization: bytes) -> None:
    error = refusal(authorization)
    assert (error.status, error.detail) == (401, "the token is not valid")
    assert error.headers[0][0] == "WWW-Authenticate"


@pytest.mark.parametrize("claim", ["exp", "sub"])
@pytest.mark.parametrize("value", [None, "absent"])
def test_a_token_must_end_and_name_somebody(claim: str, value: str | None) -> None:
    claims: dict[str, object] = {"sub": "alice", "exp": int(time.time()) + LATER, claim: None}
    if value == "absent":
        del claims[claim]
    assert refusal(sign(json.dumps(claims).encode())).detail == f"the token lacks the claim {claim}"


def test_an_empty_sub_names_nobody() -> None:
    assert refusal(token(sub="")).detail == "the token lacks the claim sub"


def test_an_expired_token_is_said_to_have_expired() -> None:
    error = refusal(token(exp=int(time.time()) - LEEWAY_S - 1))
    assert (error.status, error.detail) == (401, "the token has expired")


@pytest.mark.parametrize(
    "claims", [{"nbf": 3}, {"nbf": LEEWAY_S}, {"exp": -3}, {"iat": LEEWAY_S}, {"nbf": 3, "exp": -3, "iat": 3}]
)
def test_a_token_of_a_clock_that_differs_a_little_from_ours_is_taken(
    claims: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    authorization = token(**{name: now + seconds for name, seconds in claims.items()})
    verifier = TokenVerifier(make_own_provider([SECRET]))
    first = verifier.verify(authorization)
    monkeypatch.delattr(verifier_module, "read_parts")
    assert verifier.verify(authorization) is first


def test_a_token_of_a_clock_that_differs_by_more_is_refused() -> None:
    assert refusal(token(nbf=int(time.time()) + LEEWAY_S + 5)).detail == "the token is not valid"


def test_a_token_that_is_not_issued_yet_is_refused() -> None:
    assert refusal(token(iat=int(time.time()) + LEEWAY_S + 5)).detail == "the token is not valid"


def test_a_signature_with_another_key_is_refused() -> None:
    payload = json.dumps({"sub": "alice", "exp": int(time.time()) + LATER}).encode()
    assert refusal(sign(payload, secret=b"another secret, long enough for HS256")).status == 401


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none"}',
        b'{"alg":"None"}',
        b'{"alg":"HS512"}',
        b'{"alg":"RS256"}',
        b'{"alg":["HS256"]}',
        b'{"alg":null}',
        b'{"alg":"HS256","crit":["x"]}',
        b"{}",
        b"[]",
        b"\xff",
    ],
)
def test_no_algorithm_but_hs256_is_taken_whatever_the_header_says(header: bytes) -> None:
    authorization = sign(json.dumps({"sub": "alice", "exp": int(time.time()) + LATER}).encode(), header)
    assert refusal(authorization).status == 401
    assert refusal(authorization[: authorization.rindex(b".") + 1]).status == 401


def test_a_real_hs512_signature_with_our_key_is_refused() -> None:
    claims = {"sub": "alice", "exp": int(time.time()) + LATER}
    secret = SECRET * 2
    with pytest.raises(Rejection):
        TokenVerifier(make_own_provider([secret])).verify(f"Bearer {jwt.encode(claims, secret, 'HS512')}".encode())


def test_a_public_key_as_secret_does_not_let_rs256_in() -> None:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = json.dumps({"sub": "mallory", "exp": int(time.time()) + LATER}).encode()
    signed = encode(b'{"alg":"RS256"}') + b"." + encode(claims)
    signature = encode(key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))
    with pytest.raises(Rejection):
        TokenVerifier(make_own_provider([public.decode()])).verify(b"Bearer " + signed + b"." + signature)


def test_a_public_key_as_secret_does_not_break_on_a_token_either() -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Rejection, match="not valid"):
        TokenVerifier(make_own_provider([public.decode()])).verify(token())


@pytest.mark.parametrize("error", [jwt.InvalidKeyError, jwt.PyJWKError, TypeError, KeyError, RecursionError])
def test_whatever_a_token_breaks_in_the_library_it_is_refused(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object) -> None:
        raise error

    monkeypatch.setattr(Key, "check", check)
    assert refusal(token()).status == 401


def test_a_token_that_was_verified_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, authorization = TokenVerifier(make_own_provider([SECRET])), token()
    first = verifier.verify(authorization)
    monkeypatch.delattr(verifier_module, "read_parts")
    assert verifier.verify(authorization) is first


def test_a_cached_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, authorization = TokenVerifier(make_own_provider([SECRET])), token()
    end = verifier.verify(authorization).valid_until
    monkeypatch.setattr(time, "time", lambda: end - 1)
    verifier.verify(authorization)
    monkeypatch.setattr(time, "time", lambda: end)
    with pytest.raises(Rejection, match="expired"):
        verifier.verify(authorization)


def test_a_cached_token_still_needs_its_scope() -> None:
    verifier, authorization = TokenVerifier(make_own_provider([SECRET])), token()
    verifier.verify(authorization, Scope.WRITE)
    with pytest.raises(Rejection, match="scope"):
        verifier.verify(authorization, Scope.ADMIN)


def find_cached(verifier: TokenVerifier, authorizations: Iterable[bytes]) -> list[bytes]:
    """Return those that a verifier takes without decoding them."""
    cached = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(verifier_module, "read_parts")
        for authorization in authorizations:
            with contextlib.suppress(Rejection):
                verifier.verify(authorization)
                cached.append(authorization)
    return cached


def test_a_refused_token_is_not_cached() -> None:
    verifier, authorization = TokenVerifier(make_own_provider([SECRET])), token()
    assert find_cached(verifier, [authorization]) == []  # each look is a refusal, too
    assert find_cached(verifier, [authorization]) == []
    assert verifier.verify(authorization).user_id == "alice"


def test_no_more_tokens_are_cached_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "CACHE_TOKENS_MAX", 3)
    verifier, sent = TokenVerifier(make_own_provider([SECRET])), []
    for number in range(10):
        sent.append(token(sub=f"user {number}"))
        assert verifier.verify(sent[-1]).user_id == f"user {number}"
        assert sent[-1] in find_cached(verifier, sent)
        assert len(find_cached(verifier, sent)) <= 3


def test_one_token_spelled_in_many_ways_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "CACHE_BYTES_MAX", 10_000)
    verifier, authorization, sent = TokenVerifier(make_own_provider([SECRET])), token(), []
    for spaces in range(1, 100):
        sent.append(authorization.replace(b"Bearer ", b"Bearer" + b" " * 50 * spaces))
        verifier.verify(sent[-1])
        assert 0 < sum(map(len, find_cached(verifier, sent))) <= 10_000


@pytest.mark.parametrize("scopes", [[Scope.WRITE], [Scope.READ, Scope.ADMIN]])
def test_a_token_that_is_made_is_one_that_is_taken(scopes: list[Scope]) -> None:
    now = time.time()
    made = make_token(SECRET, "alice", scopes, LATER)
    claims = TokenVerifier(make_own_provider([SECRET])).verify(f"Bearer {made}".encode(), scopes[0])
    assert (claims.user_id, sorted(claims.scopes)) == ("alice", sorted(scopes))
    assert now - 1 < claims.valid_until - LEEWAY_S - LATER <= time.time()


# A token's own limits


def test_a_token_may_be_limited_to_origins_formats_and_a_rate() -> None:
    made = make_token(
        SECRET, "alice", [Scope.WRITE], LATER, origins=["https://shop.example"], formats=["event", "lines"], rate=2.5
    )
    claims = TokenVerifier(make_own_provider([SECRET])).verify(b"Bearer " + made.encode())
    assert claims.origins == frozenset({"https://shop.example"})
    assert claims.formats == frozenset({"event", "lines"})
    assert claims.rate_per_s == 2.5


def test_a_token_without_limits_has_none_and_one_with_an_empty_list_may_do_nothing() -> None:
    verifier = TokenVerifier(make_own_provider([SECRET]))
    free = verifier.verify(token())
    assert (free.origins, free.formats, free.rate_per_s, free.issuer) == (None, None, None, "")
    assert verifier.verify(token(origins=[], formats=[])).origins == frozenset()


@pytest.mark.parametrize(
    ("claims", "granted"),
    [
        ({"scp": "admin"}, {"admin"}),
        ({"scp": ["events:read", "admin"]}, {"events:read", "admin"}),
        ({"scope": "events:read", "scp": "admin"}, {"events:read"}),
    ],
)
def test_scopes_may_be_called_as_some_providers_do(claims: dict[str, object], granted: set[str]) -> None:
    assert TokenVerifier(make_own_provider([SECRET])).verify(token(**claims)).scopes == granted


def test_a_token_is_read_once_whatever_scope_is_asked_for() -> None:
    verifier, authorization = TokenVerifier(make_own_provider([SECRET])), token()
    claims = verifier.verify(authorization, Scope.WRITE)
    assert claims is verifier.verify(authorization)
    with pytest.raises(Rejection, match="scope"):
        verifier.verify(authorization, Scope.ADMIN)


# Revocation


class Revoked:
    """Revokes names."""

    def __init__(self) -> None:
        self.version = 0
        self.names: set[str] = set()

    def is_revoked(self, token_ids: tuple[str, ...], user_id: str) -> bool:
        return not self.names.isdisjoint((*token_ids, user_id))

    def revoke(self, name: str) -> None:
        self.version += 1
        self.names.add(name)


@pytest.mark.parametrize("name", ["one", "alice", "digest"])
def test_a_revoked_token_is_refused_also_if_it_was_taken_before(name: str) -> None:
    revoked = Revoked()
    verifier, authorization, other = (
        TokenVerifier(make_own_provider([SECRET]), revoked),
        token(jti="one"),
        token(sub="bob"),
    )
    claims = verifier.verify(authorization)
    verifier.verify(other)
    digest = digest_token(authorization.removeprefix(b"Bearer "))
    assert claims.token_ids == ("one", digest)

    revoked.revoke(digest if name == "digest" else name)
    for _ in range(2):
        with pytest.raises(Rejection) as raised:
            verifier.verify(authorization)
        assert (raised.value.status, raised.value.detail) == (401, "the token was revoked")
    assert verifier.verify(other).user_id == "bob"
    assert find_cached(verifier, [authorization, other]) == [other]

    revoked.names.clear()
    revoked.version += 1
    assert verifier.verify(authorization).user_id == "alice"


def test_a_token_of_a_curve_that_is_spelled_in_a_second_way_keeps_its_digest() -> None:
    """Whoever has an ES256 token can write its signature with n-s in place of s; both are valid."""
    key = ec.generate_private_key(ec.SECP256R1())
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    revoked = Revoked()
    verifier = TokenVerifier(make_own_provider([SECRET]), revoked)
    keys = FixedKeys(read_key_set(key_set(publish(key, "ec")), ["ES256"]))
    verifier.add(ISSUER, Provider(keys, frozenset({"ES256"}), ISSUER))
    first = es256(key, "ES256")
    signed, _, signature = first.rpartition(b".")
    decoded = base64.urlsafe_b64decode(signature + b"==")
    second = signed + b"." + encode(decoded[:32] + (order - int.from_bytes(decoded[32:], "big")).to_bytes(32, "big"))
    assert verifier.verify(b"Bearer " + first).token_ids == verifier.verify(b"Bearer " + second).token_ids

    revoked.revoke(digest_token(first))
    with pytest.raises(Rejection, match="revoked"):
        verifier.verify(b"Bearer " + second)
