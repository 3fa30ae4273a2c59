"""Each address and media type leads to its format, and a new format needs nothing but its place in the list."""

from __future__ import annotations

import inspect

import pytest

from forebay.errors import Rejection
from forebay.intake.formats import batch, beacon, lines, otlp, registry, segment, single
from forebay.intake.formats.registry import FORMATS, list_addresses, resolve

ADDRESSES = list_addresses()


@pytest.mark.parametrize(
    ("path", "media_type", "form"),
    [
        (b"/events", b"application/json", single.SingleEvent),
        (b"/events/batch", b"application/json", batch.EventBatch),
        (b"/events/batch", b"application/x-ndjson", lines.EventLines),
        (b"/v1/logs", b"application/json", otlp.OtlpJson),
        (b"/v1/logs", b"application/x-protobuf", otlp.OtlpProtobuf),
        (b"/events", b"text/plain", beacon.TextBeacon),
        (b"/events/batch", b"application/x-www-form-urlencoded", beacon.FormBeacon),
        (b"/v1/batch", b"application/json", segment.SegmentBatch),
        (b"/v1/track", b"application/json", segment.SegmentCall),
        (b"/v1/t", b"text/plain", beacon.TextBeacon),
    ],
)
def test_an_address_and_a_media_type_lead_to_a_format(path: bytes, media_type: bytes, form: type) -> None:
    assert type(ADDRESSES[path][media_type]) is form


def test_a_body_without_a_type_is_json() -> None:
    firsts = {path: next(iter(formats)) for path, formats in ADDRESSES.items()}
    assert firsts == dict.fromkeys(ADDRESSES, b"application/json")
    assert {b"/events", b"/events/batch"} < ADDRESSES.keys()


def test_no_two_formats_have_the_same_address_and_media_type() -> None:
    pairs = [(path, form.media_type) for form in FORMATS for path in form.paths]
    assert len(pairs) == len(set(pairs))
    # Each address takes two kinds of beacons beside.
    assert len(pairs) + 2 * len(ADDRESSES) == sum(map(len, ADDRESSES.values()))


def test_an_extra_path_stands_for_the_events_and_for_what_is_below() -> None:
    addresses = list_addresses(["/c", "/a/b"])
    assert addresses.keys() == ADDRESSES.keys() | {b"/c", b"/c/batch", b"/a/b", b"/a/b/batch"}
    assert addresses[b"/c"] is addresses[b"/a/b"] is addresses[b"/events"]
    assert addresses[b"/c/batch"] is addresses[b"/events/batch"]


def test_a_media_type_is_written_as_it_is_compared() -> None:
    assert all(form.media_type == form.media_type.strip().lower() for form in FORMATS)


def test_the_addresses_follow_from_the_list_of_formats_alone() -> None:
    source = inspect.getsource(registry)
    for form in FORMATS:
        # Once where it is imported, once in the list.
        assert source.count(type(form).__name__) == 2
        assert all(path not in source for path in form.paths)
        assert form.media_type not in source


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        (b"/ping", b"/ping", b""),
        (b"/events", b"/events", b""),
        (b"/events/batch", b"/events/batch", b""),
        (b"/events?ack=memory", b"/events", b"ack=memory"),
        (b"/%65vents", b"/events", b""),
        (b"http://forebay/events?ack=disk", b"/events", b"ack=disk"),
        (b"/events/", b"/events/", b""),
        (b"/metrics", b"/metrics", b""),
        (b"/%ff%2f", b"/\xff/", b""),
        (b"/ubi_events", b"/ubi_events", b""),
        (b"/ubi/a.b-c_d/ubi_events", b"/ubi_events", b"access_token=a.b-c_d"),
        (b"/ubi/a.b/ubi_queries?ack=memory", b"/ubi_queries", b"ack=memory&access_token=a.b"),
        (b"/ubi/a%26b%3Dc+/ubi_events", b"/ubi_events", b"access_token=a%26b%3Dc%2B"),
        (b"/ubi/a.b/other", b"/ubi/a.b/other", b""),
        (b"/ubi//ubi_events", b"/ubi//ubi_events", b""),
    ],
)
def test_an_address_has_its_path_however_it_is_written(url: bytes, path: bytes, query: bytes) -> None:
    assert resolve(url) == (path, query)


@pytest.mark.parametrize("url", [b"http://x", b"http://[/"])
def test_an_invalid_address_is_rejected(url: bytes) -> None:
    with pytest.raises(Rejection) as rejection:
        resolve(url)
    assert rejection.value.status == 400
