"""`POST /events` and `/events/batch` as NDJSON: one native event a line. Empty lines are passed over."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.errors import Rejection
from forebay.intake.formats.event import check_text, decode_event
from forebay.intake.formats.format import Decoded, Example, Format, Result, answer_each
from forebay.intake.formats.json_split import WHITE_SPACE
from forebay.model import Admission, Event


class EventLines(Format):
    """Events in lines; each is taken or refused for itself, and named by the number of its line, from 1 on."""

    name = "lines"
    paths = ("/events/batch", "/events")
    media_type = "application/x-ndjson"
    summary = "Events in lines (NDJSON)."
    example = Example(b'{"page":"/home","event":"open"}\n{"page":"/home","event":"click"}\n')

    def decode(self, body: bytes) -> Decoded:
        """Return the events. A body as a whole is never refused."""
        # Windows ends lines with two characters; the first is white space.
        lines = body.split(b"\n")
        places = [number for number, line in enumerate(lines, 1) if line.strip(WHITE_SPACE)]
        is_checked = body.isascii()
        return Decoded((_decode_line(lines[place - 1], is_checked=is_checked) for place in places), places)

    def answer(self, places: Sequence[int], results: Sequence[Result], admission: Admission) -> bytes:
        """Return the result of each line."""
        return answer_each("line", places, results, admission)


def _decode_line(line: bytes, *, is_checked: bool) -> Event | Rejection:
    try:
        if not is_checked:
            check_text(line, "line")
        return decode_event(line, "line")
    except Rejection as error:
        return error
