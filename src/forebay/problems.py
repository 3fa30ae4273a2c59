"""Errors as clients see them: problem details (RFC 9457), with the fields at fault."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from forebay.errors import FieldError

PROBLEM_TYPE = "application/problem+json"


def problem(status: int, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """Return the body of an answer with this status."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = field_errors(errors)
    return msgspec.json.encode(body)


def field_errors(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """Return the fields at fault as they appear in an answer."""
    return [{"field": error.field, "reason": error.reason} for error in errors]
