"""`forebay token`: a token for a client."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from forebay.cli.output import say
from forebay.intake.formats.registry import FORMATS
from forebay.secret import resolve_secret
from forebay.setting_values import DAY_S, read_origin
from forebay.settings import load_settings
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_own_token

DAYS_MAX = 36_500
DAYS = 30
MINUTE_S = 60
MINUTES_MAX = DAYS_MAX * DAY_S // MINUTE_S

TOKEN_ID_BYTES = 16
FORMAT_NAMES = list(dict.fromkeys(form.name for form in FORMATS))

app = typer.Typer()


@app.callback(invoke_without_command=True)
def token(
    context: typer.Context,
    *,
    sub: Annotated[str, typer.Option(help="User of the events: the documents' user_id.")] = "demo",
    days: Annotated[
        int | None, typer.Option(min=1, max=DAYS_MAX, help=f"Days until the token expires; {DAYS} by default.")
    ] = None,
    minutes: Annotated[
        int | None, typer.Option(min=1, max=MINUTES_MAX, help="Minutes until the token expires, instead of days.")
    ] = None,
    scope: Annotated[str, typer.Option(help=f"Scopes, separated by spaces: {', '.join(Scope)}.")] = Scope.WRITE,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of pages that may send with it, https://shop.example; several times for several."),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", help=f"Format that it may send: {', '.join(FORMAT_NAMES)}; may be repeated."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Events a second that it may send.")] = None,
    beacon: Annotated[
        bool,
        typer.Option("--beacon", help="Make one for pages: it needs --origin and --minutes, and can only send events."),
    ] = False,
) -> None:
    """Print a token, signed with the server's secret."""
    if context.invoked_subcommand is not None:
        return
    if not sub:
        raise typer.BadParameter("must not be empty", param_hint="--sub")
    lifetime_s, scopes = _choose_lifetime_s(days, minutes), _read_scopes(scope)
    if rate is not None and not 0 < rate < float("inf"):
        raise typer.BadParameter("must be more than 0", param_hint="--rate")
    if beacon:
        _check_beacon(scopes, origin, minutes)
    limits = {"origins": _check_origins(origin), "formats": _check_formats(format_), "rate": rate}
    settings = load_settings()
    name = secrets.token_hex(TOKEN_ID_BYTES)
    say(make_own_token(settings, resolve_secret(settings), sub, scopes, lifetime_s, jti=name, **limits))


def _choose_lifetime_s(days: int | None, minutes: int | None) -> int:
    if minutes is None:
        return (days or DAYS) * DAY_S
    if days is not None:
        raise typer.BadParameter("must not be given together with --days", param_hint="--minutes")
    return minutes * MINUTE_S


def _read_scopes(text: str) -> list[str]:
    scopes = text.split()
    if not scopes or not set(scopes) <= set(Scope):
        raise typer.BadParameter(f"{text!r} is not of {', '.join(Scope)}", param_hint="--scope")
    return scopes


def _check_beacon(scopes: list[str], origins: list[str] | None, minutes: int | None) -> None:
    """Check that a token that stands in a page, for everybody to read, is of little use to others."""
    if not origins or minutes is None:
        missing = "--minutes" if origins else "--origin"
        raise typer.BadParameter(f"needs {missing}", param_hint="--beacon")
    if scopes != [Scope.WRITE]:
        raise typer.BadParameter(f"must be {Scope.WRITE} with --beacon", param_hint="--scope")


def _check_origins(origins: list[str] | None) -> list[str] | None:
    try:
        return [read_origin(origin) for origin in origins or ()] or None
    except ValueError:
        raise typer.BadParameter("is no origin such as https://shop.example", param_hint="--origin") from None


def _check_formats(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in FORMAT_NAMES:
            raise typer.BadParameter(f"{name!r} is not of {', '.join(FORMAT_NAMES)}", param_hint="--format")
    return names or None
