"""Segment's HTTP API: `POST /v1/batch`, and an address for each kind of call.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/. Segment's own clients use short
addresses, too, such as `/v1/t`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Raw

from forebay.errors import Rejection
from forebay.intake.formats.beacon import HoldsToken
from forebay.intake.formats.event import DECODING_ERRORS, check_text, not_json, reason_of
from forebay.intake.formats.format import Decoded, Example, ForeignEvent, Result, encode_refusal
from forebay.intake.formats.json_split import NotSplit, split_array, split_object
from forebay.intake.formats.segment_call import TOKENS, WRITE_KEY, check_depth, decode_call, read_time
from forebay.intake.limits import check_copies
from forebay.model import Admission

BATCH_BYTES_MAX = 512 * 1024
"""Segment's clients send batches of 500 KB, some of them with the token only inside."""

SUCCESS = b'{"success":true}'

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


class _Segment(HoldsToken):
    """What all addresses have in common."""

    name = "segment"
    media_type = "application/json"
    token_field = WRITE_KEY
    takes_basic = True
    unproven_bytes_max = BATCH_BYTES_MAX


SPECIFIC = {
    "track": {"event": "Song Played"},
    "page": {"name": "Home"},
    "screen": {"name": "Player"},
    "group": {"groupId": "g1"},
    "alias": {"previousId": "u0"},
}
"""The fields of the examples that only one kind of call has."""


class SegmentCall(_Segment):
    """One event, of the kind that the address names."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.paths = (f"/v1/{kind}", f"/v1/{kind[0]}")
        self.summary = f"One {kind} call of Segment's."
        self.example = Example(
            _encode({"type": kind, "userId": "u1", "messageId": f"m-{kind}"} | SPECIFIC.get(kind, {}))
        )

    def decode(self, body: bytes) -> Decoded:
        """Return the event.

        Raises:
            Rejection: 400, it is not valid.
        """
        check_text(body)
        return Decoded((decode_call(body, {}, self._kind),), range(1), is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return that it was taken.

        Raises:
            Rejection: the event was refused.
        """
        del places, admission
        (result,) = results
        if isinstance(result, Rejection):
            raise result
        return SUCCESS


class SegmentBatch(_Segment):
    """Events of all kinds; each is taken or refused for itself."""

    paths = ("/v1/batch", "/v1/import", "/v1/b")
    summary = "Calls of Segment's clients."
    example = Example(
        b'{"batch":[{"type":"identify","userId":"u1","messageId":"m1","traits":{"plan":"free"}},'
        b'{"type":"track","userId":"u1","messageId":"m2","event":"Song Played"}],"context":{"locale":"de-CH"}}'
    )

    def decode(self, body: bytes) -> Decoded:
        """Return the events. The other fields of a batch count for each of them.

        Raises:
            Rejection: 400, it is no batch; 413, its own fields are too large for so many events.
        """
        try:
            check_text(body)
            shared = _decode_fields(body)
            calls: Sequence[bytes | Raw] = _decode_array(shared.pop("batch"))
        except (Rejection, KeyError, *DECODING_ERRORS) as error:
            shared, calls = _split(body, _no_batch(error))
        for name in TOKENS:
            shared.pop(name, None)
        check_depth(shared)
        check_copies(len(calls) * len(_encode(shared)), "the fields beside the batch")
        sent_at = read_time(shared, "sentAt")
        return Decoded(_decode_each(calls, shared), range(len(calls)), sent_at, is_foreign=True)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return that the batch was taken, and each event that was not."""
        del admission
        refusals = [
            encode_refusal("index", place, result)
            for place, result in zip(places, results, strict=True)
            if isinstance(result, Rejection)
        ]
        return b'{"success":true,"rejected":[%b]}' % b",".join(refusals) if refusals else SUCCESS


def _split(body: bytes, error: Rejection) -> tuple[dict[str, Raw], Sequence[bytes]]:
    """Split a batch of which a part is not JSON or not UTF-8; raise `error` if it cannot be split either."""
    try:
        fields = {_decode_text(name): value for name, value in split_object(body)}
        calls = split_array(fields.pop("batch"))
        for value in fields.values():
            check_text(value)
        return {name: _decode_raw(value) for name, value in fields.items()}, calls
    except (NotSplit, KeyError, Rejection, *DECODING_ERRORS):
        raise error from None


def _no_batch(error: Exception) -> Rejection:
    if isinstance(error, Rejection):
        return error
    if isinstance(error, KeyError | msgspec.ValidationError):
        reason = "batch is missing" if isinstance(error, KeyError) else reason_of(error)
        return Rejection(HTTPStatus.BAD_REQUEST, f'a batch is {{"batch": […]}}: {reason}')
    return not_json(error, "body")


def _decode_each(calls: Iterable[bytes | Raw], shared: Mapping[str, Raw]) -> Iterator[ForeignEvent | Rejection]:
    for call in calls:
        try:
            if isinstance(call, bytes):
                check_text(call, "event")
            yield decode_call(call, shared)
        except Rejection as error:
            yield error
