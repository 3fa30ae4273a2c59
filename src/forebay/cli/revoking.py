"""`forebay token revoke`, `unrevoke` and `list`: tokens that are not to count any more. No token is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import jwt
import typer

from forebay.cli.deny import remove_denials, show_denials, write_denials
from forebay.cli.options import AsJson, Days, Until, Why, choose_end
from forebay.denials.entries import Denial, Kind
from forebay.tokens.parts import digest_token

INPUT_CHARS_MAX = 1024 * 1024

KEPT_AFTER_END = timedelta(days=1)
"""The time for which a token that is over stays in the list, since a server may take it a little longer."""

Tokens = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TOKEN|JTI|DIGEST",
        show_default=False,
        help="A token, its jti or its digest; - reads them from standard input, one a line.",
    ),
]
Subs = Annotated[list[str] | None, typer.Option("--sub", help="All tokens of this user; may be repeated.")]


class _Named(NamedTuple):
    """An entry's value; `end`: the end of the token, if it was given whole."""

    kind: Kind
    value: str
    end: datetime | None = None


def revoke(
    tokens: Tokens = None, *, subs: Subs = None, reason: Why = "", until: Until = None, days: Days = None
) -> None:
    """Revoke tokens, for good or for a time.

    A token that is given whole is stored as its digest, and up to a day after its end.
    """
    named = _read_names(tokens, subs)
    now = datetime.now(UTC).replace(microsecond=0)
    end = choose_end(until, days)
    write_denials([Denial(one.kind, one.value, reason, now, end or one.end) for one in named])


def unrevoke(tokens: Tokens = None, *, subs: Subs = None) -> None:
    """Let tokens count again."""
    remove_denials((one.kind, one.value) for one in _read_names(tokens, subs))


def list_revoked(*, as_json: AsJson = False) -> None:
    """List the tokens and users that are revoked, newest first."""
    show_denials((Kind.TOKEN, Kind.SUB), as_json=as_json)


def _read_names(tokens: Sequence[str] | None, subs: Sequence[str] | None) -> list[_Named]:
    if not tokens and not subs:
        raise typer.BadParameter("either of them is needed", param_hint=["TOKEN|JTI|DIGEST", "--sub"])
    named = [_read_token(text) for argument in tokens or () for text in _expand(argument)]
    return [*named, *(_Named(Kind.SUB, sub) for sub in subs or ())]


def _expand(argument: str) -> Iterator[str]:
    if argument != "-":
        yield argument
        return
    text = sys.stdin.read(INPUT_CHARS_MAX + 1)
    if len(text) > INPUT_CHARS_MAX:
        raise typer.BadParameter(f"standard input has more than {INPUT_CHARS_MAX} characters")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise typer.BadParameter("standard input is empty")
    yield from lines


def _read_token(text: str) -> _Named:
    """Return the entry for a token, which is not stored as it is, or for an id, which is."""
    text = text.strip().removeprefix("Bearer ").strip()
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        # A part of a token would be stored and shown, and nothing would be revoked.
        if text.startswith("eyJ"):
            raise typer.BadParameter("one that begins like a token is none; was it cut off?") from None
        return _Named(Kind.TOKEN, text)
    return _Named(Kind.TOKEN, digest_token(text.encode()), _read_end(claims))


def _read_end(claims: dict[str, Any]) -> datetime | None:
    """Return the time from which a token need not be in the list; a token with a forged `exp` counts nowhere."""
    try:
        end = datetime.fromtimestamp(claims["exp"], UTC)
        return max(end, datetime.now(UTC)).replace(microsecond=0) + KEPT_AFTER_END
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
