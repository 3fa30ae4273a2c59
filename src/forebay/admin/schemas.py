"""The parts of the description of the interface that no format has of its own: schemas, parameters and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from forebay.model import LOG_ID_BYTES_MAX, PARAM_DEPTH_MAX, Ack, Admission
from forebay.problems import PROBLEM_TYPE

Json = dict[str, Any]


def ref(kind: str, name: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description} | more


_OPTIONAL = ["string", "null"]
_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["number", "null"]}]}

_EVENT: Json = {
    "type": "object",
    "description": f"An event. Fields of any other name are kept with it, at most {PARAM_DEPTH_MAX} levels deep.",
    "required": ["page", "event"],
    "properties": {
        "page": _text("The page on which it happened.", minLength=1),
        "event": _text("The event itself: its name.", minLength=1),
        "log_id": _text(
            f"Names the event, in at most {LOG_ID_BYTES_MAX} bytes: sent twice, it is one event. If it is missing, the "
            "server assigns a UUIDv7 and returns it.",
            type=_OPTIONAL,
            minLength=1,
            maxLength=LOG_ID_BYTES_MAX,
        ),
        "label": _text("A label.", type=_OPTIONAL),
        "target": _text("A target.", type=_OPTIONAL),
        "section": _text("A section of the page.", type=_OPTIONAL),
        "param": {"description": f"Any JSON, at most {PARAM_DEPTH_MAX} levels deep."},
        "timestamp": {"description": "When it happened: RFC 3339, or milliseconds since 1970.", **_TIME},
        "sent_at": {
            "description": "The client's clock when it sends: corrects `timestamp` if that clock is wrong.",
            **_TIME,
        },
    },
}

_EVENTS: Json = {"type": "array", "items": ref("schemas", "Event")}

_BATCH: Json = {
    "description": "Events; each is taken or refused for itself.",
    "anyOf": [
        _EVENTS,
        {
            "type": "object",
            "required": ["events"],
            "properties": {
                "events": _EVENTS,
                "sent_at": {"description": "The client's clock when it sends, for all events.", **_TIME},
            },
        },
    ],
}

_STATUS: Json = {
    "enum": [*map(str, Admission)],
    "description": "`created`: the event is safe and on its way. `pending`: it is safe and waits in the spool.",
}

_TAKEN: Json = {
    "type": "object",
    "required": ["status", "log_id"],
    "properties": {"status": _STATUS, "log_id": _text("The id of the event.")},
    "additionalProperties": False,
}

_FIELD_ERRORS: Json = {
    "type": "array",
    "description": "The fields at fault, if single fields are.",
    "items": {
        "type": "object",
        "required": ["field", "reason"],
        "properties": {"field": _text("Its name."), "reason": _text("The fault.")},
        "additionalProperties": False,
    },
}

_RESULT: Json = {
    "type": "object",
    "description": "The result of one event, which is named by its `index`, from 0, or by its `line`, from 1.",
    "required": ["status"],
    "properties": {
        "index": {"type": "integer"},
        "line": {"type": "integer"},
        "status": {"enum": [*map(str, Admission), "rejected"]},
        "log_id": _text("The id of an event that was taken."),
        "error": {
            "type": "object",
            "description": "Why an event was rejected.",
            "required": ["detail"],
            "properties": {"detail": _text("One sentence."), "errors": _FIELD_ERRORS},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}

_BATCH_ANSWER: Json = {
    "type": "object",
    "required": ["accepted", "rejected", "results"],
    "properties": {
        "accepted": {"type": "integer", "description": "How many events are safe."},
        "rejected": {"type": "integer", "description": "How many were refused; they are to be corrected."},
        "results": {"type": "array", "items": ref("schemas", "Result")},
    },
    "additionalProperties": False,
}

_PROBLEM: Json = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": _text("The name of the status."),
        "status": {"type": "integer"},
        "detail": _text("One sentence for the developer of the client."),
        "errors": _FIELD_ERRORS,
    },
    "additionalProperties": False,
}

_HEALTH: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["ready", "degraded", "unready"]},
        "causes": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The causes; only for a token that may read.",
        },
    },
    "additionalProperties": False,
}

SCHEMAS: Json = {
    "Event": _EVENT,
    "Batch": _BATCH,
    "Taken": _TAKEN,
    "Result": _RESULT,
    "BatchAnswer": _BATCH_ANSWER,
    "Problem": _PROBLEM,
    "Health": _HEALTH,
}


def _in_header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


PARAMETERS: Json = {
    "ack": {
        "name": "ack",
        "in": "query",
        "description": "When it is answered: once the event is synced to disk, or once it is in memory, where it is "
        "lost if the process is killed before it is delivered. `FOREBAY_ACK` is the default.",
        "schema": {"enum": [*map(str, Ack)]},
    },
    "device": _in_header("device-uuid", "The device; stored with the event."),
    "app": _in_header("app-version", "The version of the application; stored with the event."),
    "os": _in_header("os-version", "The version of the operating system; stored with the event."),
}

CHALLENGE = {"WWW-Authenticate": "The kind of token that is asked for, and the fault of this one."}

REFUSALS: Mapping[HTTPStatus, tuple[str, Mapping[str, str]]] = {
    HTTPStatus.BAD_REQUEST: ("The body, a field or the query is not valid: correct the request.", {}),
    HTTPStatus.UNAUTHORIZED: ("The token is missing, expired, revoked or not valid: get a new one.", CHALLENGE),
    HTTPStatus.FORBIDDEN: (
        "The token may not do this, the page's origin is not allowed, or the sender is shut out.",
        CHALLENGE,
    ),
    HTTPStatus.REQUEST_TIMEOUT: ("The request did not arrive in time: send it again.", {}),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("The body or the batch is too large: send less at once.", {}),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
        "The address does not take this `Content-Type` or `Content-Encoding`: correct the request.",
        {
            "Accept": "The types that the address takes, if the type was wrong.",
            "Accept-Encoding": "The codings that it takes, if the coding was wrong.",
        },
    ),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "The token, the device or the address sends too much: send the same again after `Retry-After` seconds.",
        {
            "Retry-After": "Seconds to wait.",
            "RateLimit-Policy": 'The limits that are exceeded, in events: `"device";q=500;w=10`.',
            "RateLimit": 'When each of them ends, in seconds: `"device";r=0;t=4`.',
        },
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("The head is too large: correct the request.", {}),
    HTTPStatus.INTERNAL_SERVER_ERROR: ("The server failed, and nothing was taken: send it again.", {}),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Nothing was taken: send the same again after `Retry-After` seconds.",
        {"Retry-After": "Seconds to wait."},
    ),
}
"""The refusals of an event address: the meaning, and the header lines that each may have."""


def refusal_name(status: HTTPStatus) -> str:
    """Return the name of a refusal among the components."""
    return status.phrase.replace(" ", "")


def refusal(status: HTTPStatus, content: Json | None = None) -> Json:
    """Return a refusal as problem details, or as a format has it."""
    description, headers = REFUSALS[status]
    contents: Json = {PROBLEM_TYPE: {"schema": ref("schemas", "Problem")}, **(content or {})}
    described: Json = {"description": description, "content": contents}
    if headers:
        lines = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
        described["headers"] = lines
    return described
