"""Errors as clients see them: problem details (RFC 9457), with the fields to blame."""

from __future__ import annotations

import http
from collections.abc import Sequence

import msgspec

from forebay.errors import FieldError

PROBLEM_TYPE = "application/problem+json"


def problem(status: int, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """Return the body of a problem."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = field_errors(errors)
    return msgspec.json.encode(body)


def field_errors(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """Return the fields to blame as they stand in an answer."""
    return [{"field": error.field, "reason": error.reason} for error in errors]
