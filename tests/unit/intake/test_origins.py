"""Origins: which page may send, and may read the answer."""

from __future__ import annotations

import pytest

from forebay.errors import Rejection
from forebay.intake.origins import Origins

SHOP = b"https://shop.example"
OTHER = b"https://other.example"


def lines(origins: Origins, headers: dict[bytes, bytes]) -> dict[str, str]:
    text = origins.find_lines(headers).decode()
    return dict(line.split(": ") for line in text.splitlines())


def test_a_page_of_an_allowed_origin_may_read_the_answer_and_when_to_try_again() -> None:
    shown = lines(Origins(["https://a.example", SHOP.decode()]), {b"origin": SHOP})
    assert shown["access-control-allow-origin"] == SHOP.decode()
    assert shown["vary"] == "origin"
    assert {"retry-after", "ratelimit"} <= set(shown["access-control-expose-headers"].split(", "))
    assert "access-control-allow-credentials" not in shown


def test_every_origin_has_to_be_asked_for() -> None:
    origins = Origins(["*"])
    assert lines(origins, {b"origin": OTHER})["access-control-allow-origin"] == "*"
    origins.check({b"origin": b"null"})


@pytest.mark.parametrize(
    "origin",
    [OTHER, b"null", b"", b"https://shop.example.evil.example", b"https://shop.example:8443", b"http://shop.example",
     b"https://SHOP.example", b"https://shop.example/", b"*"],
)  # fmt: skip
def test_another_origin_is_refused_and_can_read_nothing(origin: bytes) -> None:
    origins = Origins([SHOP.decode()])
    assert origins.find_lines({b"origin": origin}) == b""
    with pytest.raises(Rejection) as raised:
        origins.check({b"origin": origin, b"host": b"events.example"})
    assert raised.value.status == 403


def test_without_a_list_origins_are_not_looked_at() -> None:
    origins = Origins(())
    origins.check({b"origin": OTHER})
    assert origins.find_lines({b"origin": OTHER}) == b""
    assert origins.answer_preflight({b"origin": OTHER, b"access-control-request-method": b"POST"}) is None


def test_a_client_that_is_no_page_has_no_origin() -> None:
    origins = Origins([SHOP.decode()])
    origins.check({})
    assert origins.find_lines({}) == b""


def test_a_page_of_the_same_address_may_send() -> None:
    Origins([SHOP.decode()]).check({b"origin": b"http://localhost:3000", b"host": b"localhost:3000"})


def test_a_page_without_an_address_is_not_of_the_same_address() -> None:
    with pytest.raises(Rejection):
        Origins([SHOP.decode()]).check({b"origin": b"null", b"host": b""})


def test_a_preflight_is_answered_with_all_that_clients_send() -> None:
    headers = {b"origin": SHOP, b"access-control-request-method": b"POST"}
    turn = Origins([SHOP.decode()]).answer_preflight(headers)
    assert turn is not None
    assert SHOP in turn.origin_lines
    status, head, body = turn.answer
    assert (status, body) == (204, b"")
    assert b"content-length" not in head
    assert b"access-control-allow-methods: POST\r\n" in head
    for name in (b"authorization", b"content-type", b"device-uuid", b"app-version", b"os-version"):
        assert name in head
    assert b"access-control-max-age: 86400\r\n" in head


def test_a_preflight_of_another_origin_is_refused() -> None:
    headers = {b"origin": OTHER, b"access-control-request-method": b"POST"}
    turn = Origins([SHOP.decode()]).answer_preflight(headers)
    assert turn is not None
    assert (turn.answer[0], turn.origin_lines) == (403, b"")


@pytest.mark.parametrize("headers", [{}, {b"origin": SHOP}, {b"access-control-request-method": b"POST"}])
def test_another_question_is_no_preflight(headers: dict[bytes, bytes]) -> None:
    assert Origins([SHOP.decode()]).answer_preflight(headers) is None
