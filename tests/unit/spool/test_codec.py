"""A body comes back as it was, however it was kept, and a damaged one is noticed."""

from __future__ import annotations

import pytest

from forebay.spool.codec import PLAIN_BYTES_MAX, Codec, GroupCodec
from forebay.zstd import zstd


@pytest.fixture
def codec() -> GroupCodec:
    return GroupCodec()


@pytest.mark.parametrize("body", [b"", b"{}\n{}\n", b"\x00\xff" * 10, b"." * PLAIN_BYTES_MAX])
def test_a_small_body_stays_as_it_is(codec: GroupCodec, body: bytes) -> None:
    assert codec.pack(body) == (Codec.PLAIN, body)
    assert codec.unpack(Codec.PLAIN, body) == body


@pytest.mark.parametrize("body", [b"." * (PLAIN_BYTES_MAX + 1), bytes(range(256)) * 1000, b'{"a":1}\n' * 100_000])
def test_a_larger_body_is_compressed_and_comes_back(codec: GroupCodec, body: bytes) -> None:
    kept_as, kept = codec.pack(body)

    assert kept_as is Codec.ZSTD
    assert len(kept) < len(body)
    assert codec.unpack(kept_as, kept) == body


def test_the_numbers_in_the_database_mean_the_same_for_ever() -> None:
    assert {codec.name: codec.value for codec in Codec} == {"PLAIN": 0, "ZSTD": 1}


def test_a_body_of_another_process_can_be_read() -> None:
    body = b"line\n" * 1000

    assert GroupCodec().unpack(1, zstd.compress(body, level=19)) == body


@pytest.mark.parametrize(
    "damage", [lambda kept: kept[:-1], lambda kept: b"\x00" + kept[1:], lambda _: b"", lambda _: b"?"]
)
def test_a_damaged_body_is_noticed(codec: GroupCodec, damage: object) -> None:
    assert callable(damage)
    _, kept = codec.pack(b"line\n" * 1000)

    with pytest.raises(ValueError, match="damaged"):
        codec.unpack(Codec.ZSTD, damage(kept))


def test_a_codec_of_another_version_is_noticed(codec: GroupCodec) -> None:
    with pytest.raises(ValueError, match="9"):
        codec.unpack(9, b"")


def test_any_byte_that_changed_in_a_compressed_body_is_noticed(codec: GroupCodec) -> None:
    kept_as, kept = codec.pack(bytes(range(256)) * 100 + b"the end")

    for place in range(5, len(kept)):
        changed = bytearray(kept)
        changed[place] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            codec.unpack(kept_as, bytes(changed))
