"""The description of the interface, as OpenAPI 3.1 has it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from forebay import __version__
from forebay.admin import curl
from forebay.admin.operations import OPERATIONS
from forebay.admin.schemas import (
    PARAMETERS,
    REFUSALS,
    SCHEMAS,
    Json,
    ref,
    refusal,
    refusal_name,
)
from forebay.problems import PROBLEM_TYPE
from forebay.tokens.claims import Scope

TEXT_TYPE = "text/plain"
FORM_TYPE = "application/x-www-form-urlencoded"

BODY_SCHEMAS = {"event": ref("schemas", "Event"), "batch": ref("schemas", "Batch")}
"""The schemas of the formats, by their names, if they are JSON of our own."""

ANSWER_SCHEMAS = {
    "event": ref("schemas", "Taken"),
    "batch": ref("schemas", "BatchAnswer"),
    "lines": ref("schemas", "BatchAnswer"),
}


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
    answer_type: str
    answer: bytes
    refusal_type: str


class EventAddress(NamedTuple):
    """An event address.

    Attributes:
        path: the address; a token in it is written `{access_token}`.
        bodies: those that it takes, the usual one first.
    """

    path: str
    bodies: Sequence[Body]


def describe(addresses: Iterable[EventAddress], codings: Iterable[str], *, metrics_open: bool) -> Json:
    """Return the description; `codings` are those that a body may have."""
    coding = {
        "name": "content-encoding",
        "in": "header",
        "description": "The coding of a body that is compressed.",
        "schema": {"enum": [*codings, "identity"]},
    }
    paths: Json = {}
    names: set[str] = set()
    for address in addresses:
        name = _name_operation(address.path, names)
        names.add(name)
        paths[address.path] = {"post": {"operationId": name, **_describe_events(address)}}
    paths |= OPERATIONS
    if metrics_open:
        paths["/metrics"] = {"get": OPERATIONS["/metrics"]["get"] | {"security": []}}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Forebay",
            "version": __version__,
            "summary": "Takes events over HTTP, answers once they are safe, and registers them in OpenSearch.",
            "description": INTRODUCTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "Events", "description": "Addresses that take events."},
            {"name": "Operation", "description": "Addresses for those who run the server, and this description."},
        ],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS | {"coding": coding},
            "responses": {refusal_name(status): refusal(status) for status in REFUSALS},
            "securitySchemes": SECURITY,
        },
    }


INTRODUCTION = """\
An event is safe as soon as its request got 200. Whatever got 429, 503 or no answer is sent again unchanged: an event
that has an id is then stored once.

Every address that asks for a token answers 401 without one. With one, an unknown address answers 404, and a method
that an address does not take 405.

The examples are for a shell in which `FOREBAY` is the address of the server, and `TOKEN` is a token."""

SECURITY: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token in the header: wherever there is one, it is the best place.",
    },
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "A token in the address, for beacons and for reading this in a browser. A proxy may log it: let "
        "it end soon.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "A token as the user name, with any password or none.",
    },
}


def _name_operation(path: str, used: Collection[str]) -> str:
    """Return a name of an operation that no other one has: `/a/b` and `/a-b` would have the same."""
    name = "_".join(["post", *re.findall(r"\w+", path)])
    while name in used:
        name += "_"
    return name


def _describe_events(address: EventAddress) -> Json:
    bodies = address.bodies
    is_token_in_path = curl.IN_PATH in address.path
    write = [str(Scope.WRITE)]
    schemes = ["bearer", "query", *(["basic"] if any(body.takes_basic for body in bodies) else [])]
    names = ("ack", "device", "app", "os", "coding")
    parameters = [ref("parameters", name) for name in names] + _describe_headers(bodies)
    if is_token_in_path:
        parameters.append(
            {"name": "access_token", "in": "path", "required": True, "description": "A token that may send."}
            | {"schema": {"type": "string"}}
        )
    return {
        "tags": ["Events"],
        "summary": bodies[0].summary,
        "description": "\n".join(f"- {_kind(body)}: {body.summary}" for body in bodies),
        "parameters": parameters,
        "requestBody": {"required": True, "content": _describe_bodies(bodies)},
        "responses": {"200": _describe_answer(bodies), **_describe_refusals(bodies)},
        "security": [] if is_token_in_path else [{scheme: write} for scheme in schemes],
        "x-codeSamples": [
            {"lang": "Shell", "label": _kind(body), "source": _curl(address.path, body, body.example)}
            for body in bodies
            if body.example is not None
        ],
    }


def _kind(body: Body) -> str:
    return f"{body.media_type} with the header {body.marker}" if body.marker else body.media_type


def _curl(path: str, body: Body, example: bytes) -> str:
    if body.media_type == FORM_TYPE:
        return curl.send_form(path, example)
    # The beacon of a page can set no header.
    return curl.send(path, body.media_type, body.headers, example, is_beacon=body.media_type == TEXT_TYPE)


def _describe_headers(bodies: Sequence[Body]) -> list[Json]:
    """Return the header lines that only some bodies have, by those of their examples."""
    named = {name.lower(): (value, body) for body in bodies for name, value in body.headers.items()}
    return [
        {"name": name, "in": "header", "description": f"For this: {body.summary}", "example": value}
        | {"schema": {"type": "string"}}
        for name, (value, body) in named.items()
    ]


def _describe_bodies(bodies: Sequence[Body]) -> Json:
    """Return the bodies by their type; some have the same, and are told apart by a header line."""
    content: Json = {}
    for body in bodies:
        media = content.setdefault(body.media_type, {"schema": {"anyOf": []}})
        schema = _describe_body(body)
        if schema not in media["schema"]["anyOf"]:
            media["schema"]["anyOf"].append(schema)
        value = _example_value(body)
        if value is not None:
            media.setdefault("examples", {})[_example_name(body, media)] = {"summary": body.summary, "value": value}
    return {media_type: _simplify(media) for media_type, media in content.items()}


def _example_name(body: Body, media: Json) -> str:
    return body.name if body.name not in media.get("examples", {}) else f"{body.name}-{body.marker}"


def _simplify(media: Json) -> Json:
    """Return a media type whose schema is no choice, if there is only one."""
    (first, *others) = media["schema"]["anyOf"]
    return media if others else media | {"schema": first}


def _describe_body(body: Body) -> Json:
    schema = BODY_SCHEMAS.get(body.name, {})
    if _is_json(body.media_type):
        return schema
    packed: Json = {"type": "string"}
    if schema:
        packed |= {"contentMediaType": "application/json", "contentSchema": schema}
    if body.media_type != FORM_TYPE:
        return packed if _text_of(body.example) is not None or schema else {}
    token = {"type": "string", "description": "A token, if it is not in `Authorization` or in the address."}
    return {"type": "object", "required": ["data"], "properties": {"data": packed, "access_token": token}}


def _example_value(body: Body) -> object:
    text = _text_of(body.example)
    if text is None or body.media_type == FORM_TYPE:
        return None if text is None else {"data": text}
    return json.loads(text) if _is_json(body.media_type) else text


def _text_of(body: bytes | None) -> str | None:
    """Return a body as text; None if it is none."""
    try:
        return None if body is None else body.decode()
    except UnicodeDecodeError:
        return None


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].endswith(("/json", "+json"))


def _describe_answer(bodies: Sequence[Body]) -> Json:
    content: Json = {}
    for body in bodies:
        media = content.setdefault(body.answer_type, {"schema": {"anyOf": []}})
        schema = ANSWER_SCHEMAS.get(body.name, {})
        if schema not in media["schema"]["anyOf"]:
            media["schema"]["anyOf"].append(schema)
        text = _text_of(body.answer)
        if text:
            value = json.loads(text) if _is_json(body.answer_type) else text
            media.setdefault("examples", {}).setdefault(body.name, {"summary": body.summary, "value": value})
    simple = {media_type: _simplify(media) for media_type, media in content.items()}
    return {"description": "Every event that is not named as rejected is safe.", "content": simple}


def _describe_refusals(bodies: Sequence[Body]) -> Json:
    own: Json = {body.refusal_type: {"schema": {}} for body in bodies if body.refusal_type != PROBLEM_TYPE}
    return {
        str(status.value): refusal(status, own) if own else ref("responses", refusal_name(status))
        for status in REFUSALS
    }
