"""`forebay token`: a token for a client."""

from __future__ import annotations

from typing import Annotated

import typer

from forebay.cli.output import say
from forebay.secret import resolve_secret
from forebay.settings import load_settings
from forebay.tokens import Scope, make_token

DAY_S = 86_400
DAYS_MAX = 36_500

app = typer.Typer()


@app.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    *,
    sub: Annotated[str, typer.Option(help="User of the events: the documents' user_id.")] = "demo",
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Days until the token expires.")] = 30,
    scope: Annotated[str, typer.Option(help=f"Scopes, separated by spaces: {', '.join(Scope)}.")] = Scope.WRITE,
) -> None:
    """Print a token, signed with the server's secret (HS256)."""
    if context.invoked_subcommand is not None:
        return
    if not sub:
        raise typer.BadParameter("must not be empty", param_hint="--sub")
    scopes = scope.split()
    if not scopes or not set(scopes) <= set(Scope):
        raise typer.BadParameter(f"{scope!r} is not of {', '.join(Scope)}", param_hint="--scope")
    say(make_token(resolve_secret(load_settings()), sub, scopes, days * DAY_S))
