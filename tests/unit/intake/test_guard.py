"""The guard decides from the head alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.denials.denials import Denials
from forebay.errors import Rejection
from forebay.intake.formats.registry import list_addresses
from forebay.intake.guard import UNDECIDED, Guard, Head
from forebay.intake.heads import Grant
from forebay.intake.limits import RequestLimits
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from forebay.tokens.provider import make_own_provider
from forebay.tokens.verifier import TokenVerifier

NO_DENIALS = Denials(Path("no such list"), Counters())
SECRET = "a secret that is long enough for HS256"
BODY_BYTES_MAX = 1_000
EVENTS = list_addresses()[b"/events"]


def bearer(scope: Scope = Scope.WRITE) -> bytes:
    return f"Bearer {make_token(SECRET, 'alice', [scope], 60)}".encode()


@pytest.fixture
def guard() -> Guard:
    return Guard(
        TokenVerifier(make_own_provider([SECRET])),
        NO_DENIALS,
        Settings(_env_file=None),
        RequestLimits(8_192, BODY_BYTES_MAX, 100),
        Counters(),
    )


def check(guard: Guard, headers: dict[bytes, bytes], query: bytes = b"") -> Grant:
    return guard.check(Head(EVENTS, query, headers))


def refusal(guard: Guard, headers: dict[bytes, bytes]) -> Rejection:
    with pytest.raises(Rejection) as raised:
        check(guard, headers)
    return raised.value


def test_a_valid_head_tells_who_sends(guard: Guard) -> None:
    grant = check(guard, {b"authorization": bearer()})
    assert grant.claims.user_id == "alice"


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer x", b"Basic YTpi"])
def test_without_a_valid_token_nothing_goes_on(guard: Guard, authorization: bytes | None) -> None:
    error = refusal(guard, {} if authorization is None else {b"authorization": authorization})
    assert error.status == 401
    assert error.headers[0][0] == "WWW-Authenticate"


def test_a_token_that_may_only_read_sends_no_events(guard: Guard) -> None:
    assert refusal(guard, {b"authorization": bearer(Scope.READ)}).status == 403


def test_a_body_may_be_announced_up_to_the_limit(guard: Guard) -> None:
    check(guard, {b"authorization": bearer(), b"content-length": b"1000"})
    assert refusal(guard, {b"authorization": bearer(), b"content-length": b"1001"}).status == 413


def test_the_announced_size_may_have_thousands_of_zeros_in_front(guard: Guard) -> None:
    check(guard, {b"authorization": bearer(), b"content-length": b"1000".zfill(5_000)})
    assert refusal(guard, {b"authorization": bearer(), b"content-length": b"1001".zfill(5_000)}).status == 413


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_a_body_may_be_declared_as_not_compressed(guard: Guard, coding: bytes) -> None:
    check(guard, {b"authorization": bearer(), b"content-encoding": coding})


@pytest.mark.parametrize("coding", [b"compress", b"identity, gzip", b"gzip, gzip", b"x", b"\xff"])
def test_another_coding_is_refused_with_those_that_are_taken(guard: Guard, coding: bytes) -> None:
    error = refusal(guard, {b"authorization": bearer(), b"content-encoding": coding})
    assert (error.status, error.headers) == (415, (("Accept-Encoding", "gzip, deflate, br, zstd"),))


def test_a_client_without_a_token_is_told_nothing_about_limits(guard: Guard) -> None:
    assert refusal(guard, {b"content-length": b"1001", b"content-encoding": b"gzip"}).status == 401


def limited(**claims: Any) -> bytes:
    return f"Bearer {make_token(SECRET, 'alice', [Scope.WRITE], 60, **claims)}".encode()


@pytest.mark.parametrize(
    ("origin", "is_taken"), [(b"https://shop.example", True), (b"https://other.example", False), (None, False)]
)
def test_a_token_of_a_page_is_taken_from_its_origin_alone(
    guard: Guard, origin: bytes | None, *, is_taken: bool
) -> None:
    headers = {b"authorization": limited(origins=["https://shop.example"])}
    headers |= {} if origin is None else {b"origin": origin}
    if is_taken:
        assert check(guard, headers).version != UNDECIDED
    else:
        assert refusal(guard, headers).status == 403


def test_a_token_for_some_formats_sends_no_other(guard: Guard) -> None:
    assert check(guard, {b"authorization": limited(formats=["event", "lines"])}).version != UNDECIDED
    for formats in (["batch"], []):
        assert refusal(guard, {b"authorization": limited(formats=formats)}).status == 403
    # A beacon is of the format that it holds.
    beacon = {b"authorization": limited(formats=["event"]), b"content-type": b"text/plain"}
    assert check(guard, beacon).version != UNDECIDED


def test_a_rate_of_a_tokens_own_limits_it_without_any_setting(guard: Guard) -> None:
    grant, other = (check(guard, {b"authorization": limited(rate=rate)}) for rate in (2.5, None))
    assert grant.limited_as is not None
    assert (len(grant.limited_as.rates), other.limited_as) == (1, None)
