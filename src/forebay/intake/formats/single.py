"""`POST /events`: one native event as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.errors import Rejection
from forebay.intake.formats.event import check_text, decode_event
from forebay.intake.formats.format import Decoded, Example, Format, Result
from forebay.model import Admission

ONLY = range(1)


class SingleEvent(Format):
    """One event, a batch of one; its refusal is the one of the request."""

    name = "event"
    paths: Sequence[str] = ("/events",)
    media_type = "application/json"
    summary = "One event."
    example = Example(b'{"page":"/home","event":"click","label":"buy","param":{"price":12}}')

    def decode(self, body: bytes) -> Decoded:
        """Return the event.

        Raises:
            Rejection: 400, as by `check_text` and `decode_event`.
        """
        if not body.isascii():
            check_text(body)
        return Decoded((decode_event(body, "body"),), ONLY)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the event's `log_id`, and the queue in which it waits.

        Raises:
            Rejection: the event was refused.
        """
        del places
        (result,) = results
        if isinstance(result, Rejection):
            raise result
        return b'{"status":"%b","log_id":%b}' % (admission.encode(), result)
