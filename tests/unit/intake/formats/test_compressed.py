"""Compressed bodies: each coding, its limits, and whatever is wrong with a body."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import brotli
import pytest

from forebay.errors import Rejection
from forebay.intake.formats import compressed
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.beacon import FormBeacon, TextBeacon
from forebay.intake.formats.compressed import (
    CODINGS,
    HAVE_MEMBERS,
    PIECE_BYTES,
    WAITING_MAX,
    Compressed,
    StillPacked,
    Turns,
    _Stream,
    unpack,
)
from forebay.intake.formats.format import BYTE_ORDER_MARK, Decoded, Format
from forebay.intake.formats.single import SingleEvent
from forebay.model import Admission, Event
from forebay.zstd import zstd
from testbed.traffic.packing import MIB, PACK, bare_deflate, bomb

LIMIT = 200_000
EVENT = b'{"page":"/home","event":"click"}'
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
CHECKED: Mapping[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
EMPTY = {"gzip": PACK["gzip"](b""), "zstd": SKIPPABLE}

# Texts that pack in different ways: alike, and hardly at all.
TEXTS = [b"x", EVENT, bytes(LIMIT), bytes(number * number * 31 % 251 for number in range(LIMIT))]

every_coding = pytest.mark.parametrize("coding", CODINGS)


def refusal(function: Callable[..., object], *args: object) -> Rejection:
    with pytest.raises(Rejection) as caught:
        function(*args)
    return caught.value


def status_of(coding: str, body: bytes, bytes_max: int = LIMIT) -> int:
    return refusal(unpack, coding, body, bytes_max).status


# Unpacking


@every_coding
@pytest.mark.parametrize("text", TEXTS)
def test_a_body_is_unpacked(coding: str, text: bytes) -> None:
    assert unpack(coding, PACK[coding](text), LIMIT) == text


@pytest.mark.parametrize("text", TEXTS)
def test_a_bare_deflate_stream_is_unpacked_too(text: bytes) -> None:
    assert unpack("deflate", bare_deflate(text), LIMIT) == text


@every_coding
def test_an_empty_text_is_unpacked(coding: str) -> None:
    assert unpack(coding, PACK[coding](b""), LIMIT) == b""


@every_coding
def test_no_bytes_are_no_compressed_body(coding: str) -> None:
    assert refusal(unpack, coding, b"", LIMIT).detail == f"the body is not {coding}: it ends too early"


@pytest.mark.parametrize("coding", sorted(HAVE_MEMBERS))
@pytest.mark.parametrize("members", [2, 3, 100])
def test_members_behind_one_another_are_one_text(coding: str, members: int) -> None:
    texts = [b"", *(b"%d," % number * number for number in range(1, members))]
    assert unpack(coding, b"".join(map(PACK[coding], texts)), LIMIT) == b"".join(texts)


@pytest.mark.parametrize("parts", [(EVENT, SKIPPABLE), (SKIPPABLE, EVENT), (SKIPPABLE, EVENT, SKIPPABLE, EVENT)])
def test_skippable_frames_are_skipped(parts: Sequence[bytes]) -> None:
    body = b"".join(part if part is SKIPPABLE else PACK["zstd"](part) for part in parts)
    assert unpack("zstd", body, LIMIT) == EVENT * sum(part is EVENT for part in parts)


@every_coding
@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, LIMIT])
def test_a_body_may_have_its_limit_and_no_byte_more(coding: str, size: int) -> None:
    for text in TEXTS[2:]:
        body = PACK[coding](text[:size])
        assert unpack(coding, body, size) == text[:size]
        assert status_of(coding, body, size - 1) == 413


@pytest.mark.parametrize("coding", sorted(HAVE_MEMBERS))
def test_the_limit_counts_all_members(coding: str) -> None:
    body = b"".join(map(PACK[coding], [EVENT, b"", EVENT, b"x"]))
    assert unpack(coding, body, 2 * len(EVENT) + 1)
    assert status_of(coding, body, 2 * len(EVENT)) == 413


# Refusals


@every_coding
@pytest.mark.parametrize("text", [b"", EVENT, TEXTS[3]])
def test_a_body_that_ends_too_early_is_refused(coding: str, text: bytes) -> None:
    packed = PACK[coding](text)
    cuts = {0, 1, 2, len(packed) // 2, *range(len(packed) - 10, len(packed))}
    for cut in cuts & {*range(len(packed))}:
        assert status_of(coding, packed[:cut]) == 400, cut


@every_coding
@pytest.mark.parametrize("rest", [b"x", b"\0" * 8, b"\x1f", b"\x1f\x8b", b"(\xb5/\xfd", EVENT * 3_000])
@pytest.mark.parametrize("text", [b"", EVENT, TEXTS[3]])
def test_a_body_with_something_behind_its_end_is_refused(coding: str, rest: bytes, text: bytes) -> None:
    # The rest is in the last piece of the body, or in one of its own.
    assert status_of(coding, PACK[coding](text) + rest) == 400


@pytest.mark.parametrize("coding", ["deflate", "br"])
def test_these_codings_have_one_member_only(coding: str) -> None:
    assert status_of(coding, PACK[coding](EVENT) * 2) == 400
    assert status_of("deflate", bare_deflate(EVENT) * 2) == 400


@every_coding
@pytest.mark.parametrize("other", [*CODINGS, "none"])
def test_a_body_of_another_coding_is_refused(coding: str, other: str) -> None:
    if CODINGS[coding] is not CODINGS.get(other):
        assert status_of(coding, PACK.get(other, bytes)(EVENT)) == 400


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_body_with_a_wrong_checksum_is_refused(coding: str) -> None:
    packed = zstd.compress(EVENT, options=CHECKED) if coding == "zstd" else PACK[coding](EVENT)
    place = -5 if coding == "gzip" else -1
    damaged = bytearray(packed)
    damaged[place] ^= 1
    assert status_of(coding, bytes(damaged)) == 400


def test_a_stream_that_needs_a_dictionary_is_refused() -> None:
    packer = zlib.compressobj(zdict=EVENT)
    assert status_of("deflate", packer.compress(EVENT) + packer.flush()) == 400
    trained = zstd.ZstdDict(EVENT * 10, is_raw=True)
    assert status_of("zstd", zstd.compress(EVENT * 10, zstd_dict=trained)) == 400


def test_gzip_in_gzip_is_unpacked_once() -> None:
    assert unpack("gzip", PACK["gzip"](PACK["gzip"](EVENT)), LIMIT) == PACK["gzip"](EVENT)


# Little work and memory, whatever comes


@every_coding
def test_a_bomb_is_refused_as_soon_as_it_is_too_large(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    given: list[int] = []
    begin = CODINGS[coding]

    class Counting:
        def __init__(self, body: bytes) -> None:
            self._stream = begin(body)

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            piece = self._stream.decompress(data, max_length)
            given.append(len(piece))
            return piece

    monkeypatch.setitem(CODINGS, coding, Counting)
    assert refusal(unpack, coding, bomb(coding, 10 * MIB), LIMIT).detail == (
        f"the body is larger than {LIMIT} bytes when it is unpacked"
    )
    # brotli gives whole blocks.
    assert LIMIT < sum(given) <= LIMIT + PIECE_BYTES


@pytest.mark.parametrize("window_log", [24, 27, 31])
def test_zstd_with_a_large_window_is_refused(window_log: int) -> None:
    descriptor = bytes([0, (window_log - 10) << 3])
    block = (100 << 3 | 0b11).to_bytes(3, "little") + b"x"
    assert status_of("zstd", b"\x28\xb5\x2f\xfd" + descriptor + block) == 400
    # The same with a size in place of the window.
    in_one_piece = bytes([0b1110_0000]) + (1 << window_log).to_bytes(8, "little")
    assert status_of("zstd", b"\x28\xb5\x2f\xfd" + in_one_piece + block) == 400


def test_zstd_with_the_largest_window_of_all_decoders_is_unpacked() -> None:
    block = (100 << 3 | 0b11).to_bytes(3, "little") + b"x"
    assert unpack("zstd", b"\x28\xb5\x2f\xfd" + bytes([0, 13 << 3]) + block, LIMIT) == b"x" * 100


@pytest.mark.parametrize("window_log", [25, 28, 30])
def test_brotli_with_a_large_window_is_refused(window_log: int) -> None:
    # The extension that RFC 7932 does not have.
    assert status_of("br", bytes([0x11, window_log]) + brotli.compress(EVENT)[1:]) == 400


@pytest.mark.parametrize("coding", EMPTY)
def test_a_body_has_a_limited_number_of_members(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    begun = []
    begin = CODINGS[coding]

    def count(body: bytes) -> _Stream:
        begun.append(body)
        return begin(body)

    monkeypatch.setitem(CODINGS, coding, count)
    assert unpack(coding, EMPTY[coding] * 10_000, LIMIT) == b""
    begun.clear()
    error = refusal(unpack, coding, EMPTY[coding] * 20_000, LIMIT)
    assert (error.status, error.detail) == (413, "the body has more than 10000 parts, each compressed for itself")
    assert len(begun) == 10_000


def test_a_member_costs_the_same_however_much_is_behind_it() -> None:
    empty = EMPTY["gzip"]
    few, many = (
        min(_processor_s(unpack, "gzip", empty * 1_000 + bytes(rest)) for _ in range(3)) for rest in (1, 20 * MIB)
    )
    # A copy of the rest for each member would take a thousand times as long as a text of that size.
    assert many < 20 * few


def _processor_s(function: Callable[..., object], *args: object) -> float:
    began_at = time.process_time()
    refusal(function, *args, LIMIT)
    return time.process_time() - began_at


# Formats


def compressed_form(inner: Format, coding: str, bytes_max: int = LIMIT) -> Compressed:
    return Compressed(inner, coding, bytes_max, Turns())


async def decode(form: Compressed, body: bytes) -> tuple[Format, Decoded]:
    """Return the events, and the format that had them."""
    try:
        return form, form.decode(body)
    except StillPacked as error:
        await error.wait()
        return error.unpacked, error.unpacked.decode(body)


@every_coding
@pytest.mark.parametrize("label_bytes", [1, PIECE_BYTES - 100, PIECE_BYTES, LIMIT - 100])
async def test_events_are_those_of_the_plain_body(coding: str, label_bytes: int) -> None:
    event = EVENT[:-1] + b',"label":"%b"}' % (b"x" * label_bytes)
    for inner, body in ((SingleEvent(), event), (EventBatch(), b"[%b]" % event), (TextBeacon(SingleEvent()), event)):
        _, decoded = await decode(compressed_form(inner, coding), PACK[coding](body))
        plain = inner.decode(body)
        assert (list(decoded.events), list(decoded.places)) == (list(plain.events), list(plain.places))


@every_coding
@pytest.mark.parametrize("padding", [0, PIECE_BYTES])
async def test_a_byte_order_mark_is_taken_off(coding: str, padding: int) -> None:
    body = BYTE_ORDER_MARK + EVENT + b" " * padding
    _, decoded = await decode(compressed_form(SingleEvent(), coding), PACK[coding](body))
    assert [event.page for event in decoded.events if isinstance(event, Event)] == ["/home"]


@pytest.mark.parametrize("coding", [coding for coding in CODINGS if coding != "br"])
def test_a_body_waits_if_it_or_its_text_is_larger_than_a_piece(coding: str) -> None:
    form = compressed_form(SingleEvent(), coding)
    fitting = EVENT + b" " * (PIECE_BYTES - len(EVENT))
    assert form.decode(PACK[coding](fitting)).events
    with pytest.raises(StillPacked):
        form.decode(PACK[coding](fitting + b" "))
    with pytest.raises(StillPacked):
        form.decode(PACK[coding](EVENT) + bytes(PIECE_BYTES))


def test_brotli_waits_whatever_its_size() -> None:
    # It fills its window before it gives anything.
    with pytest.raises(StillPacked):
        compressed_form(SingleEvent(), "br").decode(PACK["br"](EVENT))


@pytest.mark.parametrize("coding", sorted(HAVE_MEMBERS))
def test_a_body_of_several_members_waits(coding: str) -> None:
    with pytest.raises(StillPacked):
        compressed_form(SingleEvent(), coding).decode(PACK[coding](EVENT) + PACK[coding](b" "))


@every_coding
@pytest.mark.parametrize(("bytes_max", "size"), [(1_024, 1_025), (PIECE_BYTES, PIECE_BYTES + 1), (LIMIT, LIMIT + 1)])
async def test_a_body_over_the_limit_is_refused(coding: str, bytes_max: int, size: int) -> None:
    form = compressed_form(EventBatch(), coding, bytes_max)
    with pytest.raises(Rejection) as caught:
        await decode(form, PACK[coding](b"[" + b" " * (size - 2) + b"]"))
    assert caught.value.status == 413
    _, decoded = await decode(form, PACK[coding](b"[" + b" " * (bytes_max - 2) + b"]"))
    assert list(decoded.events) == []


@every_coding
async def test_a_damaged_body_is_refused(coding: str) -> None:
    for text in (EVENT, TEXTS[3]):
        with pytest.raises(Rejection) as caught:
            await decode(compressed_form(EventBatch(), coding), PACK[coding](text)[:-1])
        assert (caught.value.status, caught.value.__traceback__ is None) == (400, False)


async def test_bodies_are_unpacked_one_at_a_time_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    form = compressed_form(SingleEvent(), "br")
    at_once, most, order = 0, 0, []

    def slowly(coding: str, body: bytes, bytes_max: int) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        order.append(body)
        time.sleep(0.001)
        at_once -= 1
        return unpack(coding, body, bytes_max)

    monkeypatch.setattr(compressed, "unpack", slowly)
    bodies = [PACK["br"](EVENT + b" " * number) for number in range(10)]
    await asyncio.gather(*(decode(form, body) for body in bodies))
    assert (most, order) == (1, bodies)


async def test_few_bodies_wait_and_the_others_may_come_again() -> None:
    form, body = compressed_form(SingleEvent(), "br"), PACK["br"](EVENT)
    waits = []
    for _ in range(WAITING_MAX):
        # One that is refused for another reason does not wait.
        with pytest.raises(StillPacked):
            form.decode(body)
        with pytest.raises(StillPacked) as caught:
            form.decode(body)
        waits.append(caught.value.wait())
    error = refusal(form.decode, body)
    assert (error.status, error.headers) == (503, (("Retry-After", "2"),))
    await asyncio.gather(*waits)
    assert form._turns.waiting == 0


async def test_a_body_whose_wait_is_cut_off_may_come_again() -> None:
    form = compressed_form(SingleEvent(), "br")
    with pytest.raises(StillPacked) as caught:
        form.decode(PACK["br"](EVENT))
    await form._turns.turn.acquire()
    waiting = asyncio.ensure_future(caught.value.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (refusal(caught.value.unpacked.decode, b"").status, form._turns.waiting) == (503, 0)


async def test_a_fault_of_ours_is_no_fault_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    form = compressed_form(SingleEvent(), "br")
    with pytest.raises(StillPacked) as caught:
        form.decode(PACK["br"](EVENT))
    monkeypatch.setattr(compressed, "unpack", fail)
    with pytest.raises(MemoryError):
        await caught.value.wait()
    assert refusal(caught.value.unpacked.decode, b"").status == 503
    assert form._turns.waiting == 0


class OneRequest(EventBatch):
    """A format with everything that one may have of its own."""

    name = "own"
    ok_head = b"an own head, %d"
    token_field = "writeKey"
    takes_basic = True
    is_for_one_request = True

    def refuse(self, error: Rejection) -> tuple[int, bytes, bytes]:
        return error.status, b"own", b""


async def test_everything_else_is_as_in_the_format_itself() -> None:
    inner = OneRequest()
    form = compressed_form(inner, "gzip")
    unpacked, _ = await decode(form, PACK["gzip"](b"[" + b" " * PIECE_BYTES + b"]"))
    for wrapped in (form, unpacked):
        for name in [name for name in Format.__annotations__ if name != "marker"]:
            assert getattr(wrapped, name) is getattr(inner, name), name
        assert wrapped.refuse(Rejection(400, "wrong")) == (400, b"own", b"")
        assert wrapped.answer([0], [b'"x"'], Admission.CREATED) == inner.answer([0], [b'"x"'], Admission.CREATED)


def test_a_form_is_unpacked_before_it_is_read() -> None:
    form = compressed_form(FormBeacon(SingleEvent()), "gzip")
    (event,) = form.decode(PACK["gzip"](b"data=%7B%22page%22%3A%22a%22%2C%22event%22%3A%22b%22%7D")).events
    assert isinstance(event, Event)
    assert event.page == "a"
