"""The description of a server's interface: it is made from the formats themselves."""

from __future__ import annotations

from http import HTTPStatus

from forebay.admin.bodies import Body, is_json
from forebay.admin.openapi import EventAddress, describe
from forebay.admin.schemas import Json
from forebay.errors import Rejection
from forebay.intake.formats.beacon import HoldsToken
from forebay.intake.formats.compressed import ACCEPTED_CODINGS
from forebay.intake.formats.format import Format, FormatOfHead
from forebay.intake.formats.registry import Addresses, Formats, with_token
from forebay.model import Admission

LOG_ID = b'"01a20cea-e993-767e-9b6e-e60ffa0e7691"'
"""The id of an event that was taken."""

REFUSAL = Rejection(HTTPStatus.BAD_REQUEST, "the body is not valid")


def describe_server(addresses: Addresses, *, metrics_open: bool) -> Json:
    """Return the description of a server with these event addresses."""
    codings = ACCEPTED_CODINGS.split(", ")
    return describe(list_event_addresses(addresses), codings, metrics_open=metrics_open)


def list_event_addresses(addresses: Addresses) -> list[EventAddress]:
    """Return the event addresses, and the forms of them that have a token in the address."""
    listed = [(path.decode(), formats) for path, formats in addresses.items()]
    listed += [(with_token(path), formats) for path, formats in listed if with_token(path)]
    return [EventAddress(path, _list_bodies(path, formats)) for path, formats in listed]


def _list_bodies(path: str, formats: Formats) -> list[Body]:
    return [_describe(path, key.decode(), form) for key, form in formats.items()]


def _describe(path: str, key: str, form: Format) -> Body:
    example = form.example
    answer_type, answer = _answer(form)
    return Body(
        name=form.name,
        media_type=form.media_type,
        summary=form.summary,
        marker="" if "/" in key else key,
        example=example.body if example.path in {"", path} else None,
        headers=example.headers,
        takes_basic=form.takes_basic,
        token_field=form.token_field if isinstance(form, HoldsToken) else "",
        answer_type=answer_type,
        answer=answer,
        refusal_type=_content_type(form.refuse(REFUSAL)[1]),
    )


def _answer(form: Format) -> tuple[str, bytes]:
    """Return the type and the body of the answer to the example of a format; no body if it is no JSON."""
    answer_type = _content_type(form.ok_head)
    if not is_json(answer_type):
        return answer_type, b""
    if isinstance(form, FormatOfHead):
        form = form.of_head({name.lower().encode(): value.encode() for name, value in form.example.headers.items()})
    places = form.decode(form.example.body).places
    return answer_type, form.answer(places, [LOG_ID] * len(places), Admission.CREATED)


def _content_type(head: bytes) -> str:
    return head.partition(b"content-type: ")[2].partition(b"\r\n")[0].decode()
