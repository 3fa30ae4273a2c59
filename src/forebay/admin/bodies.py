"""The bodies that an event address takes, and its answers to them, by their types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from forebay.admin import curl
from forebay.admin.schemas import SCHEMAS, Json, ref

TEXT_TYPE = "text/plain"
FORM_TYPE = "application/x-www-form-urlencoded"

BODY_SCHEMAS = {"event": ref("schemas", "Event"), "batch": ref("schemas", "Batch")}
"""The schemas of the formats, by their names, if they are JSON of our own."""

ANSWER_SCHEMAS = ("Taken", "BatchAnswer")
"""The names of the schemas of answers; those of some formats look otherwise."""


class Body(NamedTuple):
    """A body that an event address takes, and the answers to it.

    Attributes:
        name: the name of its format.
        media_type: its type.
        summary: one line about it.
        marker: the header line that tells it, if its type does not.
        example: one that is taken; None if there is none for this address.
        headers: the header lines of the example.
        takes_basic: whether the token may be the user name of Basic authentication.
        token_field: the member of its JSON in which a token may be; empty if in none.
        answer_type: the type of the answer 200.
        answer: such an answer.
        refusal_type: the type of a refusal.
    """

    name: str
    media_type: str
    summary: str
    marker: str
    example: bytes | None
    headers: Mapping[str, str]
    takes_basic: bool
    token_field: str
    answer_type: str
    answer: bytes
    refusal_type: str


class _Content(NamedTuple):
    """A text of one type, in one format: a body, or the answer to it.

    Attributes:
        example: its value as JSON; None if it has none.
    """

    media_type: str
    schema: Json
    example: object


def describe_bodies(bodies: Iterable[Body]) -> Json:
    """Return the bodies by their types."""
    return _gather((body, _Content(body.media_type, _schema_of(body), _example_of(body))) for body in bodies)


def describe_answers(bodies: Iterable[Body]) -> Json:
    """Return the answers 200 by their types."""
    answers = ((body, _read(body.answer_type, body.answer)) for body in bodies)
    contents = ((body, _Content(body.answer_type, _schema_of_answer(answer), answer)) for body, answer in answers)
    return {"description": "Every event that is not named as rejected is safe.", "content": _gather(contents)}


def _gather(contents: Iterable[tuple[Body, _Content]]) -> Json:
    """Return contents by their types; those of one type may have several schemas."""
    gathered: Json = {}
    for body, content in contents:
        media = gathered.setdefault(content.media_type, {"schema": {"anyOf": []}})
        choice = media["schema"]["anyOf"]
        if content.schema not in choice:
            choice.append(content.schema)
        if content.example is not None:
            example = {"summary": body.summary, "value": content.example}
            media.setdefault("examples", {}).setdefault(body.name, example)
    for media in gathered.values():
        if len(media["schema"]["anyOf"]) == 1:
            (media["schema"],) = media["schema"]["anyOf"]
    return gathered


def _schema_of(body: Body) -> Json:
    schema = BODY_SCHEMAS.get(body.name, {})
    if is_json(body.media_type):
        return schema
    if body.media_type not in {TEXT_TYPE, FORM_TYPE}:
        return {} if _read(body.media_type, body.example) is None else {"type": "string"}
    packed = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    if body.media_type == TEXT_TYPE:
        return packed
    token = {"type": "string", "description": "A token, if it is not in `Authorization` or in the address."}
    return {"type": "object", "required": ["data"], "properties": {"data": packed, "access_token": token}}


def _schema_of_answer(answer: object) -> Json:
    """Return the schema of ours by which an answer is made; none for those of other formats."""
    for name in ANSWER_SCHEMAS:
        if isinstance(answer, dict) and answer.keys() == SCHEMAS[name]["properties"].keys():
            return ref("schemas", name)
    return {}


def _example_of(body: Body) -> object:
    value = _read(body.media_type, body.example)
    return {"data": value} if body.media_type == FORM_TYPE and value is not None else value


def _read(media_type: str, text: bytes | None) -> object:
    """Return the value of a text; None if it is empty, or cannot stand in JSON."""
    if not text:
        return None
    if is_json(media_type):
        value: object = json.loads(text)
        return value
    return curl.as_text(text)


def is_json(media_type: str) -> bool:
    """Return whether bodies of this type are JSON."""
    return media_type.partition(";")[0].endswith(("/json", "+json"))
