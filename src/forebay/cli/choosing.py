"""Which dead letters a command means: the same options with the same meaning in each of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, get_type_hints

import typer

from forebay.cli.durations import parse_duration
from forebay.spool.inspection import Choice
from forebay.spool.writing import now_ms

OPTIONS = ("--type", "--reason", "--index", "--older-than", "--newer-than")

_MILLISECOND = timedelta(milliseconds=1)


def choose(
    log_ids: Annotated[list[str] | None, typer.Argument(metavar="LOG_ID", show_default=False)] = None,
    *,
    error_type: Annotated[str | None, typer.Option("--type", help="Those with this error_type.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Those whose reason contains it, in small or large letters.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Those of this index.")] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="36h|7d", help="Those that died longer ago."),
    ] = None,
    newer_than: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="36h|7d", help="Those that died not so long ago."),
    ] = None,
) -> Choice:
    """Return the choice that fits all that is given.

    Raises:
        typer.BadParameter: a text is none.
    """
    for text in (*(log_ids or ()), error_type, reason, index):
        # What a shell passes on that is not UTF-8; SQLite takes none of it.
        if text is not None and not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise typer.BadParameter(f"{text!r} is not UTF-8")
    # Those that die from here on were not meant.
    now = now_ms() + 1
    return Choice(
        tuple(dict.fromkeys(log_ids or ())),
        error_type,
        reason,
        index,
        now - (older_than or timedelta()) // _MILLISECOND,
        None if newer_than is None else now - newer_than // _MILLISECOND,
    )


def with_choice(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `choose`, and call it with the `choice` that they make."""
    return _extend(command, choose)


def with_explicit_choice(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that does nothing by itself: one of the options, or `--all`, must be given."""
    return _extend(command, _choose_explicitly)


def _choose_explicitly(
    *, everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False, **given: Any
) -> Choice:
    is_given = any(value not in (None, []) for value in given.values())
    if is_given == everything:
        raise typer.BadParameter("either some of them or --all is needed", param_hint=["LOG_ID", *OPTIONS])
    return choose(**given)


def _extend(command: Callable[..., None], chooser: Callable[..., Choice]) -> Callable[..., None]:
    choosing = _parameters(choose) | _parameters(chooser)
    own = {name: parameter for name, parameter in _parameters(command).items() if name != "choice"}

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        choice = chooser(**{name: arguments.pop(name) for name in choosing})
        command(choice, **arguments)

    # This is where typer looks for a command's options.
    parameters = (choosing | own).values()
    run.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
