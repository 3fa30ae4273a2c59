"""Keys that a provider publishes: always fetched in the background, never too often, and kept while it is down."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from forebay.errors import KeyNotKnown, Rejection
from forebay.telemetry.counters import Counters
from forebay.tokens import jwks
from forebay.tokens.jwks import INTERVALS, Intervals, PublishedKeys
from forebay.tokens.keys import KEYS_MAX
from forebay.tokens.parts import KEY_ID_CHARS_MAX
from testbed.servers.identity_provider import (
    FAST,
    ISSUER,
    KeyServer,
    encode_number,
    key_set,
    make_claims,
    publish,
    sign,
    verify,
)
from unit.tokens.conftest import ALGORITHMS, SECRET, Keys, World, running


async def wait_for(condition: Callable[[], bool], limit_s: float = 5) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def status_of(waiting: Awaitable[object]) -> int:
    try:
        await waiting
    except Rejection as error:
        return error.status
    return 200


def token(keys: Keys, key_id: str, sub: str = "alice") -> bytes:
    return sign(keys.rsa, "RS256", make_claims(sub=sub), {"kid": key_id})


# All is well


async def test_a_token_that_comes_before_the_first_keys_waits_for_them(world: World, keys: Keys) -> None:
    with pytest.raises(KeyNotKnown):
        world.verifier.verify(b"Bearer " + token(keys, "rsa"))
    assert (await verify(world.verifier, token(keys, "rsa"))).user_id == "alice"


async def test_a_new_key_is_known_as_soon_as_somebody_uses_it(world: World, keys: Keys, other_keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    world.server.body = key_set(publish(keys.rsa, "rsa"), publish(other_keys.rsa, "new"))

    asked = len(world.server.asked_at)
    users = [f"user {number}" for number in range(500)]
    found = await asyncio.gather(*(verify(world.verifier, token(other_keys, "new", user)) for user in users))

    assert [claims.user_id for claims in found] == users
    assert len(world.server.asked_at) - asked <= 2


async def test_nobody_with_a_good_token_is_refused_while_keys_rotate(
    world: World, keys: Keys, other_keys: Keys
) -> None:
    answers: list[int] = []
    both = {"old": keys, "new": other_keys}

    async def send(number: int, key_id: str) -> None:
        answers.append(await status_of(verify(world.verifier, token(both[key_id], key_id, f"user {number}"))))

    async with asyncio.TaskGroup() as group:
        for turn in range(8):
            # As providers do it: the new key is published when it comes into use, the old one stays for a while.
            shown = ["old"] if turn < 3 else ["old", "new"]
            world.server.body = key_set(*(publish(both[name].rsa, name) for name in shown))
            for number in range(20):
                group.create_task(send(turn * 20 + number, shown[number % len(shown)]))
            await asyncio.sleep(0.05)

    assert answers == [200] * 160


async def test_a_key_that_is_gone_ends_its_tokens_also_those_that_were_verified(
    world: World, keys: Keys, other_keys: Keys
) -> None:
    old = token(keys, "rsa")
    await verify(world.verifier, old)
    generation = world.verifier.generation
    world.server.body = key_set(publish(other_keys.rsa, "new"))
    await wait_for(lambda: world.verifier.generation != generation)

    assert await status_of(verify(world.verifier, old)) == 401
    assert await status_of(verify(world.verifier, token(other_keys, "new"))) == 200


async def test_keys_that_stay_end_nothing(world: World, keys: Keys, other_keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    world.server.body = key_set(*json.loads(keys.publish())["keys"], publish(other_keys.rsa, "new"))
    await wait_for(lambda: len(world.server.asked_at) > 3)
    assert world.verifier.generation == 0


@pytest.mark.parametrize(
    ("cache_control", "lifetime_s"),
    [
        ("", 300),
        ("no-store", 300),
        ("max-age=0", 60),
        ("public, MAX-AGE=600, must-revalidate", 600),
        ('max-age="900"', 900),
        ("max-age=86400", 3600),
        ("s-maxage=900", 300),
        ("max-age=-1", 300),
        (f"max-age={'9' * 5000}", 3600),
    ],
)
def test_the_provider_says_how_long_its_keys_may_be_kept(cache_control: str, lifetime_s: float) -> None:
    published = PublishedKeys(ISSUER, "", ALGORITHMS, lambda: None, Counters())
    assert published._read_lifetime(cache_control) == lifetime_s


# The provider is slow, down, or lies


async def test_a_slow_provider_makes_nobody_wait_whose_key_is_known(world: World, keys: Keys, other_keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(FAST.timeout_s / 2)
        return web.Response(body=key_set(publish(keys.rsa, "rsa"), publish(other_keys.rsa, "new")))

    world.server.answer = answer
    late = asyncio.create_task(verify(world.verifier, token(other_keys, "new")))
    while not late.done():
        # Without waiting: it is no coroutine.
        assert world.verifier.verify(b"Bearer " + token(keys, "rsa", f"{time.monotonic()}")).issuer == ISSUER
        await asyncio.sleep(0.01)
    assert (await late).user_id == "alice"


async def test_a_provider_that_hangs_has_failed_and_its_keys_stay(world: World, keys: Keys, other_keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    world.server.answer = hang
    await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > 0)
    assert await status_of(verify(world.verifier, token(keys, "rsa", "bob"))) == 200
    assert await status_of(verify(world.verifier, token(other_keys, "new"))) == 503


async def test_the_keys_stay_in_use_while_the_provider_is_down(world: World, keys: Keys, other_keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    await world.server.stop()
    ends_at = time.monotonic() + 3 * FAST.refresh_s_max
    while time.monotonic() < ends_at:
        assert await status_of(verify(world.verifier, token(keys, "rsa", f"{time.monotonic()}"))) == 200
        await asyncio.sleep(0.02)
    assert world.counters.key_fetch_failures[ISSUER] > 1

    # A token that may be good is not refused for good: its client keeps the events.
    with pytest.raises(Rejection) as raised:
        await verify(world.verifier, token(other_keys, "new"))
    assert (raised.value.status, raised.value.headers) == (503, (("Retry-After", "10"),))

    world.server.body = key_set(publish(other_keys.rsa, "new"))
    await world.server.start()
    assert await status_of(verify(world.verifier, token(other_keys, "new"))) == 200


async def test_a_provider_that_never_answered_refuses_nobody_for_good(keys: Keys) -> None:
    server = KeyServer(keys.publish())
    await server.start()
    await server.stop()
    async with running(server) as world:
        await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > 0)
        with pytest.raises(Rejection) as raised:
            world.verifier.verify(b"Bearer " + token(keys, "rsa"))
        assert (raised.value.status, raised.value.headers) == (503, (("Retry-After", "10"),))
        own = sign(SECRET.encode(), "HS256", make_claims(iss=None))
        assert world.verifier.verify(b"Bearer " + own).user_id == "alice"

        await server.start()
        await wait_for(lambda: bool(world.counters.keys_fetched_at))
        assert world.verifier.verify(b"Bearer " + token(keys, "rsa")).user_id == "alice"
        await server.stop()


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
OTHER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP384R1())
LIES: dict[str, bytes] = {
    "HTML": b"<!doctype html><title>Sign in</title>",
    "nothing": b"",
    "no UTF-8": b"\xff\xfe",
    "an array": b"[]",
    "no keys in it": b"{}",
    "keys that are no array": b'{"keys":{"rsa":1}}',
    "an empty set": b'{"keys":[]}',
    "keys that are no objects": b'{"keys":[1,null,"rsa",[]]}',
    "nested": b"[" * 100_000,
    "1 MB": b'{"keys":[' + b" " * jwks.ANSWER_BYTES_MAX + b"]}",
    "too many keys": key_set(*[publish(OTHER, f"{number}") for number in range(KEYS_MAX + 1)]),
    "a secret": b'{"keys":[{"kty":"oct","kid":"rsa","k":"c2VjcmV0","alg":"HS256"}]}',
    "a weak key": key_set(publish(WEAK, "rsa")),
    "a huge key": b'{"keys":[{"kty":"RSA","kid":"rsa","e":"AQAB","n":"' + b"_" * 4000 + b'"}]}',
    "an algorithm of the settings that does not fit": key_set(publish(OTHER, "rsa", alg="ES256")),
    "an algorithm that is not in the settings": key_set(publish(OTHER, "rsa", alg="RS512")),
    "HS256 as the algorithm of a public key": key_set(publish(OTHER, "rsa", alg="HS256")),
    "alg none": key_set(publish(OTHER, "rsa", alg="none")),
    "an algorithm that is no text": key_set(publish(OTHER, "rsa", alg=["RS256"])),
    "a curve that is not in the settings": key_set(publish(CURVE, "ec")),
    "a key for encryption": key_set(publish(OTHER, "rsa", use="enc")),
    "a key that only encrypts": key_set(publish(OTHER, "rsa", key_ops=["encrypt"])),
    "a private key": key_set(publish(OTHER, "rsa", d=encode_number(OTHER.private_numbers().d))),
    "a kid that is no text": key_set(publish(OTHER, "rsa") | {"kid": 7}),
    "a point that is not on the curve": b'{"keys":[{"kty":"EC","crv":"P-256","kid":"ec","x":"%b","y":"%b"}]}'
    % (b"A" * 43, b"B" * 42 + b"A"),
    "the wrong curve": b'{"keys":[{"kty":"EC","crv":"Ed25519","kid":"ec","x":"AA","y":"AA"}]}',
    "no members": b'{"keys":[{"kty":"RSA","kid":"rsa"}]}',
    "members that are no text": b'{"keys":[{"kty":"RSA","kid":"rsa","n":7,"e":[]}]}',
    "no kty": b'{"keys":[{"kid":"rsa"}]}',
}


@pytest.mark.parametrize("name", LIES)
async def test_an_answer_without_a_key_for_us_changes_nothing(world: World, keys: Keys, name: str) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    fetched_at = dict(world.counters.keys_fetched_at)
    with structlog.testing.capture_logs() as logs:
        world.server.body = LIES[name]
        await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > 2)

    assert await status_of(verify(world.verifier, token(keys, "rsa", "bob"))) == 200
    assert world.counters.keys_fetched_at[ISSUER] - fetched_at[ISSUER] < 1
    assert [(line["event"], line["issuer"], line["has_keys"]) for line in logs] == [("keys_not_fetched", ISSUER, True)]
    assert all(mark not in logs[0]["reason"] for mark in ("<", "{", "["))


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 400, 401, 404, 500, 503])
async def test_an_answer_with_another_status_or_a_redirect_changes_nothing(
    world: World, keys: Keys, other_keys: Keys, status: int
) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    evil = KeyServer(key_set(publish(other_keys.rsa, "rsa")))
    await evil.start()

    async def answer(_: web.Request) -> web.Response:
        # 204 and the like allow no body.
        body = None if status == 204 else evil.body
        return web.Response(status=status, body=body, headers={"Location": evil.url})

    world.server.answer = answer
    await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > 1)
    assert await status_of(verify(world.verifier, token(keys, "rsa", "bob"))) == 200
    assert await status_of(verify(world.verifier, token(other_keys, "rsa"))) == 401
    assert evil.asked_at == []
    await evil.stop()


async def test_an_answer_that_ends_early_or_is_compressed_changes_nothing(world: World, keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    world.server.body = gzip.compress(keys.publish())
    world.server.headers = {"Content-Encoding": "gzip"}
    await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > 1)

    async def end_early(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"keys":')
        assert request.transport is not None
        request.transport.abort()
        return response

    failures = world.counters.key_fetch_failures[ISSUER]
    world.server.answer = end_early
    await wait_for(lambda: world.counters.key_fetch_failures[ISSUER] > failures + 1)
    assert await status_of(verify(world.verifier, token(keys, "rsa", "bob"))) == 200


async def test_other_keys_beside_a_good_one_are_left_out(world: World, keys: Keys) -> None:
    lies = [json.loads(body)["keys"][0] for name, body in LIES.items() if "key" in name and name.startswith("a ")]
    world.server.body = key_set(*lies, *json.loads(keys.publish())["keys"])
    assert await status_of(verify(world.verifier, token(keys, "rsa"))) == 200
    assert await status_of(verify(world.verifier, sign(WEAK, "RS256"))) == 401


async def test_a_key_is_used_with_the_algorithm_that_its_provider_names(world: World, keys: Keys) -> None:
    world.server.body = key_set(publish(keys.rsa, "rsa", alg="RS256"))
    assert await status_of(verify(world.verifier, sign(keys.rsa, "RS256", head={"kid": "rsa"}))) == 200
    assert await status_of(verify(world.verifier, sign(keys.rsa, "PS256", head={"kid": "rsa"}))) == 401
    assert await status_of(verify(world.verifier, sign(keys.rsa, "PS256"))) == 401


# A kid that nobody knows


async def test_an_unknown_kid_in_every_request_asks_no_more_often_than_allowed(keys: Keys) -> None:
    server = KeyServer(keys.publish())
    await server.start()
    # The provider shares a processor with all this signing: it is slow at times, and not away.
    async with running(server, FAST._replace(timeout_s=30)) as world:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        statuses: list[int] = []
        answers = {200: 0, 401: 0}

        async def send(number: int) -> None:
            # One kid that comes again and again, and one that never comes twice.
            statuses.append(await status_of(verify(world.verifier, token(keys, "wrong"))))
            statuses.append(await status_of(verify(world.verifier, token(keys, f"wrong {number}"))))
            answers[await status_of(verify(world.verifier, token(keys, "rsa", f"user {number}")))] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(send(number))
                await asyncio.sleep(0.003)

        assert set(statuses) == {401}
        assert answers == {200: 300, 401: 0}
        assert len(world.server.asked_at) <= 2 + (loop.time() - began_at) / FAST.asking_s


async def test_whoever_hears_the_answer_late_is_told_all_the_same(world: World, keys: Keys) -> None:
    asking = token(keys, "wrong")
    with pytest.raises(KeyNotKnown) as raised:
        world.verifier.verify(b"Bearer " + asking)
    await raised.value.wait()
    # As if the server had other things to do meanwhile.
    time.sleep(2 * FAST.asking_s)  # noqa: ASYNC251 the loop is to be late
    with pytest.raises(Rejection) as refused:
        world.verifier.verify(b"Bearer " + asking, is_last_try=True)
    assert refused.value.status == 401


async def test_the_fetching_ends_also_if_a_key_is_wanted_in_the_same_moment(world: World) -> None:
    published = PublishedKeys(ISSUER, world.server.url, ALGORITHMS, lambda: None, Counters(), Intervals(asking_s=0))
    fetching = asyncio.create_task(published.run())
    with pytest.raises(KeyNotKnown) as raised:
        published.find("rsa", is_last_try=False)
    await raised.value.wait()
    # It waits now.
    await asyncio.sleep(0.1)
    with pytest.raises(KeyNotKnown):
        published.find("wrong", is_last_try=False)
    fetching.cancel()
    await asyncio.wait({fetching}, timeout=1)
    assert fetching.cancelled()


async def test_with_real_times_one_question_is_asked_in_ten_seconds(keys: Keys) -> None:
    assert INTERVALS.asking_s == 10
    server = KeyServer(keys.publish())
    await server.start()
    async with running(server, INTERVALS) as world:
        assert await status_of(verify(world.verifier, token(keys, "rsa"))) == 200
        waiting = [asyncio.create_task(verify(world.verifier, token(keys, f"wrong {n}"))) for n in range(50)]
        for number in range(200):
            assert await status_of(verify(world.verifier, token(keys, "rsa", f"user {number}"))) == 200
            await asyncio.sleep(0.005)
        assert len(server.asked_at) == 1
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await server.stop()


async def test_a_kid_that_the_newest_keys_do_not_have_is_refused_at_once(world: World, keys: Keys) -> None:
    assert await status_of(verify(world.verifier, token(keys, "wrong"))) == 401
    with pytest.raises(Rejection) as raised:
        world.verifier.verify(b"Bearer " + token(keys, "wrong"))
    assert raised.value.status == 401


async def test_a_kid_that_was_unknown_is_asked_for_again(world: World, keys: Keys, other_keys: Keys) -> None:
    """Whoever guesses the name of the next key must not keep it out."""
    assert await status_of(verify(world.verifier, token(keys, "new"))) == 401
    world.server.body = key_set(publish(keys.rsa, "rsa"), publish(other_keys.rsa, "new"))
    await asyncio.sleep(FAST.asking_s)
    assert await status_of(verify(world.verifier, token(other_keys, "new"))) == 200


async def test_a_last_try_without_an_answer_is_told_to_come_again(world: World, keys: Keys) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    with pytest.raises(Rejection) as raised:
        world.verifier.verify(b"Bearer " + token(keys, "wrong"), is_last_try=True)
    assert raised.value.status == 503


@pytest.mark.parametrize(
    ("algorithm", "claims", "key_id"),
    [
        ("RS256", {"exp": 1}, "wrong"),
        ("RS256", {"aud": "other"}, "wrong"),
        ("RS512", {}, "wrong"),
        ("RS256", {}, "w" * (KEY_ID_CHARS_MAX + 1)),
    ],
)
async def test_a_token_that_is_not_valid_anyway_asks_for_no_key(
    world: World, keys: Keys, algorithm: str, claims: dict[str, Any], key_id: str
) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    with pytest.raises(Rejection) as raised:
        world.verifier.verify(b"Bearer " + sign(keys.rsa, algorithm, make_claims(**claims), {"kid": key_id}))
    assert raised.value.status == 401
    assert not world.published._asked


async def test_only_so_many_wait(world: World, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    await verify(world.verifier, token(keys, "rsa"))
    monkeypatch.setattr(jwks, "WAITING_MAX", 10)
    waiting = []
    for number in range(10):
        waiting.append(asyncio.create_task(verify(world.verifier, token(keys, f"wrong {number}"))))
        await asyncio.sleep(0)
    assert await status_of(verify(world.verifier, token(keys, "wrong"))) == 503
    assert [await status_of(task) for task in waiting] == [401] * 10
    assert await status_of(verify(world.verifier, token(keys, "wrong"))) == 401


async def test_only_so_many_unknown_names_are_kept(world: World, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "NAMES_MAX", 5)
    statuses = await asyncio.gather(
        *(status_of(verify(world.verifier, token(keys, f"wrong {number}"))) for number in range(20))
    )
    assert sorted(statuses) == [401] * 5 + [503] * 15
    assert len(world.published._unknown) == 5


async def test_whoever_waits_at_the_end_is_answered(keys: Keys) -> None:
    server = KeyServer(keys.publish())
    await server.start()
    async with running(server, INTERVALS) as world:
        await verify(world.verifier, token(keys, "rsa"))
        waiting = asyncio.create_task(status_of(verify(world.verifier, token(keys, "wrong"))))
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(waiting, 1) == 503
    await server.stop()


async def test_fetches_are_counted(world: World, keys: Keys) -> None:
    before = time.time()
    await verify(world.verifier, token(keys, "rsa"))
    assert before - 1 < world.counters.keys_fetched_at[ISSUER] <= time.time()
    assert world.counters.key_fetches[ISSUER] >= 1
    assert world.counters.key_fetch_failures[ISSUER] == 0
