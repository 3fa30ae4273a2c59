"""`forebay token`: a token for a client."""

from __future__ import annotations

import time
from typing import Annotated

import jwt
import typer

from forebay.cli.output import say
from forebay.secret import resolve_secret
from forebay.settings import load_settings
from forebay.tokens import Scope

DAY_S = 86_400
DAYS_MAX = 36_500


def token(
    *,
    sub: Annotated[str, typer.Option(help="Whose events they are: the documents' user_id.")] = "demo",
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How long it is valid.")] = 30,
    scope: Annotated[str, typer.Option(help=f"What it allows, with spaces between: {', '.join(Scope)}.")] = Scope.WRITE,
) -> None:
    """Print a token, signed with the server's secret (HS256)."""
    if not sub:
        raise typer.BadParameter("must not be empty", param_hint="--sub")
    if not scope.split() or not set(scope.split()) <= set(Scope):
        raise typer.BadParameter(f"{scope!r} is not of {', '.join(Scope)}", param_hint="--scope")
    now = int(time.time())
    claims = {"sub": sub, "iat": now, "exp": now + days * DAY_S, "scope": " ".join(scope.split())}
    say(jwt.encode(claims, resolve_secret(load_settings()), algorithm="HS256"))
