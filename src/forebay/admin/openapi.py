"""The description of the interface, as OpenAPI 3.1 has it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from forebay import __version__
from forebay.admin import curl
from forebay.admin.bodies import FORM_TYPE, TEXT_TYPE, Body, describe_answers, describe_bodies
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
that an address does not take 405. Any address may answer 408, 431 or 503 to a request that comes too slowly, has too
large a head, or finds no room.

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
        "description": "\n".join(f"- {_kind(body)}: {body.summary}{_token_note(body)}" for body in bodies),
        "parameters": parameters,
        "requestBody": {"required": True, "content": describe_bodies(bodies)},
        "responses": {"200": describe_answers(bodies), **_describe_refusals(bodies)},
        "security": [] if is_token_in_path else [{scheme: write} for scheme in schemes],
        "x-codeSamples": [
            {"lang": "Shell", "label": _kind(body), "source": _curl(address.path, body, body.example)}
            for body in bodies
            if body.example is not None
        ],
    }


def _kind(body: Body) -> str:
    return f"{body.media_type} with the header {body.marker}" if body.marker else body.media_type


def _token_note(body: Body) -> str:
    return f" A token may be its member `{body.token_field}`." if body.token_field else ""


def _curl(path: str, body: Body, example: bytes) -> str:
    if body.media_type == FORM_TYPE:
        return curl.send_form(path, example)
    if body.media_type == TEXT_TYPE:
        # The beacon of a page can set no header.
        query = "" if curl.IN_PATH in path else "?access_token=$TOKEN"
        return curl.send(f"{path}{query}", body.media_type, body.headers, example)
    authorization = curl.BASIC if body.takes_basic else curl.BEARER
    return curl.send(path, body.media_type, body.headers, example, authorization)


def _describe_headers(bodies: Sequence[Body]) -> list[Json]:
    """Return the header lines that only some bodies have, by those of their examples."""
    named = {name.lower(): (value, body) for body in bodies for name, value in body.headers.items()}
    # It stands with the bodies.
    named.pop("content-type", None)
    return [
        {"name": name, "in": "header", "description": f"For this: {body.summary}", "example": value}
        | {"schema": {"type": "string"}}
        for name, (value, body) in named.items()
    ]


def _describe_refusals(bodies: Sequence[Body]) -> Json:
    own: Json = {body.refusal_type: {"schema": {}} for body in bodies if body.refusal_type != PROBLEM_TYPE}
    return {
        str(status.value): refusal(status, own) if own else ref("responses", refusal_name(status))
        for status in REFUSALS
    }
