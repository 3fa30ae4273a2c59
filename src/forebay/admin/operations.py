"""The description of the addresses that take no events, by path and method."""

from __future__ import annotations

from http import HTTPStatus

from forebay.admin import curl
from forebay.admin.schemas import Json, ref, refusal_name
from forebay.tokens.claims import OPERATOR_SCOPES

_UNAUTHORIZED = ref("responses", refusal_name(HTTPStatus.UNAUTHORIZED))
_FORBIDDEN = ref("responses", refusal_name(HTTPStatus.FORBIDDEN))
_MAY_READ: list[Json] = [{"bearer": [str(scope)]} for scope in OPERATOR_SCOPES]
_ANY_TOKEN: list[Json] = [{"bearer": []}, {"query": []}]


def _answer(description: str, media_type: str, schema: Json, example: object = None) -> Json:
    media: Json = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"description": description, "content": {media_type: media}}


def _operation(name: str, summary: str, responses: Json, security: list[Json], sample: str) -> Json:
    return {
        "operationId": name,
        "tags": ["Operation"],
        "summary": summary,
        "responses": responses,
        "security": security,
        "x-codeSamples": [{"lang": "Shell", "label": summary, "source": sample}],
    }


_PONG = _answer("It answers.", "text/plain", {"const": "pong"})
_HEALTH = ref("schemas", "Health")

OPERATIONS: Json = {
    "/ping": {
        "get": _operation("ping", "Whether there is a server.", {"200": _PONG}, [], curl.read("/ping")),
        "head": _operation(
            "ping_head",
            "The same without a body.",
            {"200": {"description": "It answers."}},
            [],
            curl.read("/ping", "--head"),
        ),
    },
    "/health/live": {
        "get": _operation(
            "health_live",
            "Whether the process answers.",
            {"200": _answer("It does.", "application/json", {"const": {"status": "alive"}})},
            [],
            curl.read("/health/live"),
        )
    },
    "/health/ready": {
        "get": _operation(
            "health_ready",
            "Whether events are taken; a token that may read is told the causes if something is wrong.",
            {
                "200": _answer("Events are taken.", "application/json", _HEALTH, {"status": "ready"}),
                "503": _answer("No events are taken.", "application/json", _HEALTH, {"status": "unready"}),
            },
            [{}, *_MAY_READ],
            curl.read("/health/ready", curl.BEARER),
        )
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "Metrics for Prometheus.",
            {
                "200": _answer("The metrics of all workers.", "text/plain", {"type": "string"}),
                "401": _UNAUTHORIZED,
                "403": _FORBIDDEN,
            },
            _MAY_READ,
            curl.read("/metrics", curl.BEARER),
        )
    },
    "/openapi.json": {
        "get": _operation(
            "openapi",
            "This description.",
            {
                "200": _answer("OpenAPI 3.1.", "application/json", {"type": "object"}),
                "401": _UNAUTHORIZED,
            },
            _ANY_TOKEN,
            curl.read("/openapi.json", curl.BEARER),
        )
    },
    "/docs": {
        "get": _operation(
            "docs",
            "This description, for a browser.",
            {"200": _answer("A page.", "text/html", {"type": "string"}), "401": _UNAUTHORIZED},
            _ANY_TOKEN,
            curl.read("/docs", curl.BEARER),
        )
    },
}
"""Each operation asks for the token that it needs."""
