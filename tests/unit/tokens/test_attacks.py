"""Whatever a token is made like, one that is not good is refused, breaks nothing, and is shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forebay.errors import Rejection
from forebay.tokens.claims import Scope
from forebay.tokens.parts import TOKEN_BYTES_MAX
from testbed.servers.identity_provider import (
    AUDIENCE,
    FAST,
    ISSUER,
    LATER,
    PrivateKey,
    encode,
    make_claims,
    pem,
    publish,
    sign,
    sign_bytes,
    verify,
)
from unit.tokens.conftest import SECRET, Keys, World

Attack = Callable[[Keys, Keys], bytes]
"""Makes a token from the provider's keys, or from those of somebody else."""

ATTACKS: dict[str, Attack] = {}
MALLORY = "mallory@evil.example"
value: Any  # of the member that is wrong, in the loops below


def attack(name: str) -> Callable[[Attack], Attack]:
    def add(make: Attack) -> Attack:
        assert name not in ATTACKS
        ATTACKS[name] = make
        return make

    return add


def by(algorithm: str, claims: Any = None, head: Any = None) -> Attack:
    """Make a token that the provider itself signed, with claims and a head that it should not have."""

    def make(keys: Keys, _: Keys) -> bytes:
        key, key_id = keys.of(algorithm)
        shown = {"kid": key_id} if head is None else head
        return sign(key, algorithm, make_claims(**claims) if isinstance(claims, dict) else claims, shown)

    return make


def own(claims: Any = None, head: Any = None, secret: str = SECRET) -> Attack:
    """Make a token that is signed with our own secret."""

    def make(*_: Keys) -> bytes:
        good = {"iss": None, "aud": None}
        shown = make_claims(**{**good, **claims}) if isinstance(claims, dict) else claims or make_claims(**good)
        return sign(secret.encode(), "HS256", shown, head)

    return make


def unsigned(head: Any, signature: bytes = b"") -> Attack:
    return lambda *_: encode(head) + b"." + encode(make_claims(sub=MALLORY)) + b"." + signature


# No signature

for spelling in ("none", "None", "NONE", "nOnE", "none ", ""):
    ATTACKS[f"alg {spelling!r}, no signature"] = unsigned({"alg": spelling})
    ATTACKS[f"alg {spelling!r}, any signature"] = unsigned({"alg": spelling, "kid": "rsa"}, b"AAAA")
for value in (None, 0, True, [], ["RS256"], {"RS256": 1}, "rs256", "RS256\x00", "HS256\n"):
    ATTACKS[f"alg {value!r}"] = unsigned({"alg": value, "kid": "rsa"}, b"AAAA")
ATTACKS["no alg"] = unsigned({"kid": "rsa"}, b"AAAA")
ATTACKS["our own, no signature"] = lambda *_: encode({"alg": "HS256"}) + b"." + encode(make_claims(iss=None)) + b"."


# The public key as a secret


def public_forms(key: PrivateKey) -> dict[str, bytes]:
    public = key.public_key()
    published = publish(key, "rsa")
    return {
        "PEM": pem(key),
        "PEM without its last line break": pem(key).strip(),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(published).encode(),
        "member of the JWK": base64.urlsafe_b64decode(f"{published.get('n', published.get('x'))}=="),
    }


FORMS = ("PEM", "PEM without its last line break", "DER", "JWK", "member of the JWK")
for kind in ("RS256", "ES256", "EdDSA"):
    for form in FORMS:

        def confuse(keys: Keys, _: Keys, kind: str = kind, form: str = form) -> bytes:
            key, key_id = keys.of(kind)
            return sign(public_forms(key)[form], "HS256", make_claims(sub=MALLORY), {"kid": key_id})

        def confuse_own(keys: Keys, _: Keys, kind: str = kind, form: str = form) -> bytes:
            return sign(public_forms(keys.of(kind)[0])[form], "HS256", make_claims(iss=None, aud=None))

        ATTACKS[f"HS256 with the {form} of the {kind} key"] = confuse
        ATTACKS[f"HS256 with the {form} of the {kind} key, without an issuer"] = confuse_own
ATTACKS["our own secret in the name of the provider"] = own({"iss": ISSUER, "aud": AUDIENCE})
ATTACKS["the empty secret"] = own(secret="")


# Other keys and other algorithms

for kind in ("RS256", "PS256", "ES256", "EdDSA"):
    ATTACKS[f"{kind} by somebody else, with the provider's kid"] = lambda keys, others, kind=kind: sign(  # type: ignore[misc]
        others.of(kind)[0], kind, make_claims(sub=MALLORY), {"kid": keys.of(kind)[1]}
    )
    ATTACKS[f"{kind} by somebody else, without a kid"] = lambda _, others, kind=kind: sign(others.of(kind)[0], kind)  # type: ignore[misc]
    ATTACKS[f"{kind} by the provider, in our own name"] = by(kind, {"iss": None, "aud": None})
    ATTACKS[f"{kind} by the provider, in an unknown one's name"] = by(kind, {"iss": "https://other.example"})
ATTACKS["an algorithm that the settings do not name"] = by("RS512")
ATTACKS["PS256 shown as RS256"] = lambda keys, _: sign(keys.rsa, "PS256", head={"alg": "RS256", "kid": "rsa"})
ATTACKS["ES256 with the kid of the RSA key"] = lambda keys, _: sign(keys.ec, "ES256", head={"kid": "rsa"})
ATTACKS["RS256 with the kid of the EC key"] = lambda keys, _: sign(keys.rsa, "RS256", head={"kid": "ec"})
ATTACKS["ES384 on another curve"] = lambda *_: sign(
    ec.generate_private_key(ec.SECP384R1()), "ES384", head={"alg": "ES256", "kid": "ec"}
)
ATTACKS["a weak RSA key in the head"] = lambda *_: sign(
    rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose
    "RS256",
    make_claims(sub=MALLORY),
    {"kid": "rsa"},
)


# The head

KEY_IDS: tuple[Any, ...] = (
    "/dev/null",
    "../../../../etc/passwd",
    "rsa' OR '1'='1",
    "rsa; DROP TABLE keys",
    "rsa\x00",
    "RSA",
    " rsa",
    "",
    "k" * 4000,
    "|/usr/bin/true",
    "https://evil.example/key",
    "\ud83d",
    7,
    7.5,
    True,
    None,
    [],
    ["rsa"],
    {},
    {"rsa": "rsa"},
    {"$ne": None},
)
for key_id in KEY_IDS:
    # With the empty file as the secret, for a server that opens what `kid` names.
    ATTACKS[f"kid {str(key_id)[:30]!r} {type(key_id).__name__}, HS256"] = lambda *_, key_id=key_id: sign(
        b"", "HS256", make_claims(sub=MALLORY), {"kid": key_id}
    )
    ATTACKS[f"kid {str(key_id)[:30]!r} {type(key_id).__name__}, RS256"] = lambda _, others, key_id=key_id: sign(  # type: ignore[misc]
        others.rsa, "RS256", make_claims(sub=MALLORY), {"kid": key_id}
    )
for name in ("jku", "x5u"):
    for address in ("https://evil.example/jwks.json", f"{ISSUER}@evil.example/", "file:///etc/passwd"):
        ATTACKS[f"{name} {address}"] = lambda _, others, name=name, address=address: sign(  # type: ignore[misc]
            others.rsa, "RS256", make_claims(sub=MALLORY), {"kid": "rsa", name: address}
        )
ATTACKS["jwk in the head"] = lambda _, others: sign(others.rsa, "RS256", head={"jwk": publish(others.rsa, "rsa")})
ATTACKS["jwk in the head, with a kid"] = lambda _, others: sign(
    others.ec, "ES256", head={"kid": "ec", "jwk": publish(others.ec, "ec")}
)
ATTACKS["oct jwk in the head"] = lambda *_: sign(
    b"k" * 32, "HS256", head={"jwk": {"kty": "oct", "k": encode(b"k" * 32).decode()}}
)
ATTACKS["x5c in the head"] = lambda _, others: sign(
    others.rsa, "RS256", head={"kid": "rsa", "x5c": [base64.b64encode(pem(others.rsa)).decode()]}
)
for crit in (["exp"], ["b64"], [], "b64", None, [7], ["kid"]):
    ATTACKS[f"crit {crit!r}"] = by("RS256", head={"kid": "rsa", "crit": crit, "b64": True})
    ATTACKS[f"crit {crit!r}, our own"] = own(head={"crit": crit})
for b64 in (False, None, 0, "false"):
    ATTACKS[f"b64 {b64!r}"] = by("RS256", head={"kid": "rsa", "b64": b64})


@attack("b64 false with the payload as it is")
def send_plain_payload(keys: Keys, _: Keys) -> bytes:
    signed = (
        encode({"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]})
        + b"."
        + json.dumps(make_claims()).encode()
    )
    return signed + b"." + encode(sign_bytes(signed, keys.rsa, "RS256"))


# Members that stand twice, and texts that are no JSON objects

GOOD = json.dumps(make_claims())[1:-1].encode()
for name, head in {
    "alg twice": b'{"alg":"none","alg":"RS256","kid":"rsa"}',
    "alg twice, the other way round": b'{"alg":"RS256","kid":"rsa","alg":"none"}',
    "kid twice": b'{"alg":"RS256","kid":"ec","kid":"rsa"}',
    "alg twice, once escaped": b'{"alg":"RS256","\\u0061lg":"RS256","kid":"rsa"}',
    "an array": b"[]",
    "a text": b'"RS256"',
    "null": b"null",
    "empty": b"",
    "no UTF-8": b'{"alg":"RS256","kid":"\xff"}',
    "UTF-16": '{"alg":"RS256","kid":"rsa"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"alg":"RS256","kid":"rsa"}',
    "nested": b'{"alg":"RS256","kid":"rsa","x":' + b"[" * 2500 + b"]" * 2500 + b"}",
    "rest behind it": b'{"alg":"RS256","kid":"rsa"}{}',
    "single quotes": b"{'alg':'RS256','kid':'rsa'}",
    "NaN": b'{"alg":"RS256","kid":"rsa","x":NaN}',
}.items():
    ATTACKS[f"head: {name}"] = by("RS256", head=head)
for name, payload in {
    "sub twice": b'{%b,"sub":"mallory"}' % GOOD,
    "exp twice": b'{"exp":1,%b}' % GOOD,
    "iss twice": b'{"iss":"https://other.example",%b}' % GOOD,
    "scope twice": b'{%b,"scope":"events:write","scope":"admin"}' % GOOD,
    "a name twice, deep inside": b'{%b,"x":[{"y":{"z":1,"z":2}}]}' % GOOD,
    "an array": b"[]",
    "an array with claims": b"[{%b}]" % GOOD,
    "a text": b'"alice"',
    "a number": b"1",
    "null": b"null",
    "empty": b"",
    "no UTF-8": b'{%b,"x":"\xff"}' % GOOD,
    "UTF-16": f"{{{GOOD.decode()}}}".encode("utf-16"),
    "nested arrays": b'{%b,"x":%b%b}' % (GOOD, b"[" * 2500, b"]" * 2500),
    "nested a little too deeply": b'{%b,"x":%b%b}' % (GOOD, b"[" * 32, b"]" * 32),
    "nested objects": b'{%b,"x":%b1%b}' % (GOOD, b'{"":' * 1200, b"}" * 1200),
    "a number with 5,000 digits": b'{%b,"x":%b}' % (GOOD, b"7" * 5000),
    "rest behind it": b"{%b}x" % GOOD,
    "half of an emoji as sub": json.dumps(make_claims(sub="\ud83d")).encode(),
}.items():
    ATTACKS[f"claims: {name}"] = by("RS256", payload)
    ATTACKS[f"claims: {name}, our own"] = own(payload.replace(ISSUER.encode(), b"https://own.example") or b" ")


# Who it is from, whom it is for, whose it is

for value in (
    "",
    ISSUER.upper(),
    ISSUER + "/",
    f" {ISSUER}",
    ISSUER.replace("https", "http"),
    ISSUER + "\x00",
    [ISSUER],
    {"iss": ISSUER},
    7,
    True,
    False,
):
    ATTACKS[f"iss {value!r}"] = by("RS256", {"iss": value})
ATTACKS["iss null"] = by("RS256", json.dumps({**make_claims(), "iss": None}).encode())
for value in (
    None,
    "",
    "other",
    AUDIENCE.upper(),
    f"{AUDIENCE} ",
    f"x{AUDIENCE}",
    AUDIENCE[:-1],
    f"{AUDIENCE},other",
    [],
    ["other"],
    [[AUDIENCE]],
    [AUDIENCE, 7],
    [AUDIENCE, None],
    [{"aud": AUDIENCE}],
    {AUDIENCE: True},
    7,
    True,
    False,
):
    ATTACKS[f"aud {value!r}"] = by("RS256", {"aud": value})
ATTACKS["aud null"] = by("RS256", json.dumps({**make_claims(), "aud": None}).encode())
for value in (None, "", 7, ["alice"], {"sub": "alice"}, True):
    ATTACKS[f"sub {value!r}"] = by("RS256", {"sub": value})
for value in (7, True, ["x"], {}):
    ATTACKS[f"jti {value!r}"] = by("RS256", {"jti": value})


# When

for claim in ("exp", "nbf", "iat"):
    for value in (b'"9999999999"', b"NaN", b"Infinity", b"-Infinity", b"true", b"false", b"-1", b"1e400", b"-1e400"):
        payload = (
            json.dumps(make_claims(**{claim: 1}))
            .encode()
            .replace(b'"%b": 1' % claim.encode(), b'"%b": %b' % (claim.encode(), value), 1)
        )
        ATTACKS[f"{claim} {value.decode()}"] = by("RS256", payload)
        ATTACKS[f"{claim} {value.decode()}, our own"] = own(payload.replace(ISSUER.encode(), b"https://own.example"))
    for far in (10**12 * 3, 10**18, 10**400, 1e300):
        ATTACKS[f"{claim} {str(far)[:20]} of {len(str(far))} digits"] = by("RS256", {claim: far})
    for value in ([], {}, [1_700_000_000], "2030-01-01", "soon"):
        ATTACKS[f"{claim} {value!r}"] = by("RS256", {claim: value})
ATTACKS["exp missing"] = by("RS256", {"exp": None})
ATTACKS["exp null"] = by("RS256", json.dumps({**make_claims(), "exp": None}).encode())
ATTACKS["exp past"] = by("RS256", {"exp": int(time.time()) - LATER})
ATTACKS["nbf to come"] = by("RS256", {"nbf": int(time.time()) + LATER})
ATTACKS["iat to come"] = by("RS256", {"iat": int(time.time()) + LATER})


# What it may do

for value in (
    "",
    "admin",
    "events:read",
    "events:writeX",
    "EVENTS:WRITE",
    [],
    ["admin"],
    7,
    None,
    {"a": 1},
    [7],
    [["events:write"]],
):
    claims = json.dumps({**make_claims(), "scope": value}).encode()
    ATTACKS[f"scope {value!r}"] = by("RS256", claims)
    ATTACKS[f"scp {value!r}"] = by("RS256", claims.replace(b'"scope"', b'"scp"'))
for claim in ("origins", "formats"):
    for value in (7, True, {}, [7], [None]):
        ATTACKS[f"{claim} {value!r}"] = by("RS256", {claim: value})
    ATTACKS[f"{claim} null"] = by("RS256", json.dumps({**make_claims(), claim: None}).encode())
for value in (0, -1, True, "100", [], 10**400):
    ATTACKS[f"rate {str(value)[:20]!r}"] = by("RS256", {"rate": value})
for text in (b"NaN", b"Infinity", b"1e400"):
    ATTACKS[f"rate {text.decode()}"] = by("RS256", b'{%b,"rate":%b}' % (GOOD, text))


# The form of the token, and its signature


def change(make: Attack, changed: Callable[[bytes], bytes]) -> Attack:
    return lambda keys, others: changed(make(keys, others))


def flip_last(token: bytes) -> bytes:
    """Change the bits of the last letter that mean nothing: another spelling of the same signature."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + bytes([letters[letters.index(token[-1:]) ^ 1]])


def cut(token: bytes, number: int) -> bytes:
    """Leave out bytes at the end of the signature."""
    signed, _, signature = token.rpartition(b".")
    return signed + b"." + encode(base64.urlsafe_b64decode(signature + b"==")[:-number])


for kind in ("RS256", "ES256", "EdDSA"):
    good = by(kind)
    for name, changed in {
        "a changed first letter of the signature": lambda t: (
            t[: t.rindex(b".") + 1] + (b"B" if t[t.rindex(b".") + 1] == 65 else b"A") + t[t.rindex(b".") + 2 :]
        ),
        "another spelling of the signature": flip_last,
        "a signature without its last byte": lambda t: cut(t, 1),
        "half a signature": lambda t: cut(t, 32),
        "no signature": lambda t: t[: t.rindex(b".") + 1],
        "padding": lambda t: t + b"=",
        "more padding": lambda t: t + b"==",
        "padded parts": lambda t: b".".join(part + b"=" * (-len(part) % 4 or 4) for part in t.split(b".")),
        "base64 of the usual kind": lambda t: t[:-3] + b"+/A",
        "a space inside": lambda t: t.replace(b".", b". ", 1),
        "a line break inside": lambda t: t[:20] + b"\n" + t[20:],
        "a NUL behind": lambda t: t + b"\x00",
        "a letter behind": lambda t: t + b"A",
        "a fourth part": lambda t: t + b".AAAA",
        "two parts": lambda t: t.rpartition(b".")[0],
        "one part": lambda t: t.partition(b".")[0],
        "swapped parts": lambda t: b".".join(t.split(b".")[i] for i in (1, 0, 2)),
        "the claims of another": lambda t: b".".join(
            (t.split(b".")[0], encode(make_claims(sub=MALLORY)), t.split(b".")[2])
        ),
    }.items():
        ATTACKS[f"{kind}, {name}"] = change(good, changed)
for name, signature in {
    "zeros": bytes(64),
    "r is 0": bytes(32) + b"\x01" * 32,
    "s is 0": b"\x01" * 32 + bytes(32),
    "the order of the curve": bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551") * 2,
    "DER of nothing": bytes.fromhex("3006020100020100"),
}.items():
    ATTACKS[f"ES256, signature: {name}"] = lambda *_, signature=signature: (
        encode({"alg": "ES256", "kid": "ec"}) + b"." + encode(make_claims(sub=MALLORY)) + b"." + encode(signature)
    )
ATTACKS["five parts, as of an encrypted one"] = lambda *_: b".".join(
    (encode({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "rsa"}), b"AAAA", b"AAAA", b"AAAA", b"AAAA")
)
ATTACKS["five parts, dir"] = lambda *_: encode({"alg": "dir", "enc": "A128GCM"}) + b"..AAAA.AAAA.AAAA"


@attack("JSON serialisation")
def serialise_as_json(keys: Keys, others: Keys) -> bytes:
    head, payload, signature = by("RS256")(keys, others).decode().split(".")
    return json.dumps({"protected": head, "payload": payload, "signature": signature}).encode()


@attack("JSON serialisation with two signatures")
def serialise_twice(keys: Keys, others: Keys) -> bytes:
    head, payload, signature = by("RS256")(keys, others).decode().split(".")
    return json.dumps({"payload": payload, "signatures": [{"protected": head, "signature": signature}] * 2}).encode()


@attack("a token inside a token")
def nest(keys: Keys, others: Keys) -> bytes:
    return by("RS256", by("RS256")(keys, others), {"kid": "rsa", "cty": "JWT"})(keys, others)


@attack("the signature of ES256 in DER")
def sign_in_der(keys: Keys, _: Keys) -> bytes:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    signed = encode({"alg": "ES256", "kid": "ec"}) + b"." + encode(make_claims())
    return signed + b"." + encode(keys.ec.sign(signed, ec.ECDSA(hashes.SHA256())))


@attack("Ed25519 with a key of order 1")
def sign_with_small_order(*_: Keys) -> bytes:
    signed = encode({"alg": "EdDSA", "kid": "ed"}) + b"." + encode(make_claims(sub=MALLORY))
    return signed + b"." + encode(b"\x01" + bytes(63))


@attack("another Ed25519 key with the kid of the RSA key")
def sign_as_rsa(*_: Keys) -> bytes:
    return sign(ed25519.Ed25519PrivateKey.generate(), "EdDSA", make_claims(sub=MALLORY), {"kid": "rsa"})


ATTACKS["empty"] = lambda *_: b""
ATTACKS["dots"] = lambda *_: b".."
ATTACKS["zeros"] = lambda *_: bytes(100)
ATTACKS["letters that are no ASCII"] = lambda *_: "é.é.é".encode()
ATTACKS["8 KB and a byte"] = by("RS256", {"x": "x" * TOKEN_BYTES_MAX})
ATTACKS["1 MB"] = by("RS256", {"x": "x" * 1024 * 1024})
ATTACKS["1 MB of head"] = by("RS256", head={"kid": "rsa", "x": "x" * 1024 * 1024})


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_and_shown_nowhere(world: World, keys: Keys, other_keys: Keys, name: str) -> None:
    token = ATTACKS[name](keys, other_keys)
    with structlog.testing.capture_logs() as logs, pytest.raises(Rejection) as raised:
        await verify(world.verifier, token, Scope.WRITE)
    error = raised.value
    assert error.status in (401, 403)
    shown = f"{error} {error.detail} {error.headers} {logs}"
    assert MALLORY not in shown
    assert [part for part in token.split(b".") if len(part) > 7 and part.decode("latin-1") in shown] == []
    assert [header for header, _ in error.headers] == ["WWW-Authenticate"]


def test_there_are_many_attacks() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("has_key_id", [True, False])
async def test_what_the_attacks_are_made_from_is_taken(
    world: World,
    keys: Keys,
    algorithm: str,
    has_key_id: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    key, key_id = keys.of(algorithm)
    token = sign(key, algorithm, head={"kid": key_id} if has_key_id else {})
    claims = await verify(world.verifier, token, Scope.WRITE)
    assert (claims.user_id, claims.issuer) == ("alice", ISSUER)
    assert (await verify(world.verifier, sign(SECRET.encode(), "HS256", make_claims(iss=None)))).issuer == ""


async def test_attacks_make_the_provider_be_asked_no_more_often(world: World, keys: Keys, other_keys: Keys) -> None:
    loop = asyncio.get_running_loop()
    await verify(world.verifier, sign(keys.rsa, "RS256"))
    began_at = loop.time()
    tokens = [make(keys, other_keys) for make in ATTACKS.values()]
    results = await asyncio.gather(
        *(verify(world.verifier, token, Scope.WRITE) for token in tokens), return_exceptions=True
    )
    assert {type(result) for result in results} == {Rejection}
    assert len(world.server.asked_at) <= 2 + (loop.time() - began_at) / FAST.asking_s
