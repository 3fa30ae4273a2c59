"""Which dead letters, or pending events, a command means: the same options with the same meaning in each of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, get_type_hints

import typer

from forebay.cli.durations import parse_duration
from forebay.clock import now_ms
from forebay.spool.beside.inspection import Choice
from forebay.spool.beside.requests import Burial

DEAD_OPTIONS = ("--type", "--reason", "--index", "--older-than", "--newer-than")

PENDING_OPTIONS = ("--index", "--refused", "--older-than")

EVERYTHING = inspect.Parameter(
    "everything",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--all", help="All of them.")],
)

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
    _check_texts((*(log_ids or ()), error_type, reason, index))
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


def choose_pending(
    log_ids: Annotated[list[str] | None, typer.Argument(metavar="LOG_ID", show_default=False)] = None,
    *,
    index: Annotated[str | None, typer.Option(help="Those of this index.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Those that the sink has refused at least once.")] = False,
    older_than: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="36h|7d", help="Those that were received longer ago."),
    ] = None,
) -> Burial:
    """Return the burial of the pending events that fit all that is given.

    Raises:
        typer.BadParameter: a text is none.
    """
    _check_texts((*(log_ids or ()), index))
    # Those that are received from here on were not meant.
    received_before_ms = now_ms() + 1 - (older_than or timedelta()) // _MILLISECOND
    return Burial(received_before_ms, frozenset(log_ids or ()), index, refused)


def with_choice(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `choose`, and call it with the `choice` that they make."""
    return _extend(command, choose)


def with_explicit_choice(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same for a command that does nothing by itself: one of the options, or `--all`, must be given."""
    return _extend(command, choose, DEAD_OPTIONS)


def with_explicit_burial(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `choose_pending`, one of which, or `--all`, must be given; it gets a `choice`."""
    return _extend(command, choose_pending, PENDING_OPTIONS)


def _check_texts(texts: Iterable[str | None]) -> None:
    for text in texts:
        # A shell passes on bytes that are not UTF-8, and SQLite takes none of them.
        if text is not None and not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise typer.BadParameter(f"{text!r} is not UTF-8")


def _check_explicit(needed: Sequence[str], given: Iterable[Any], *, everything: bool) -> None:
    is_given = any(value not in (None, [], False) for value in given)
    if is_given == everything:
        raise typer.BadParameter("either some of them or --all is needed", param_hint=["LOG_ID", *needed])


def _extend(
    command: Callable[..., None], chooser: Callable[..., Choice | Burial], needed: Sequence[str] = ()
) -> Callable[..., None]:
    choosing = _parameters(chooser)
    everything = {EVERYTHING.name: EVERYTHING} if needed else {}
    own = {name: parameter for name, parameter in _parameters(command).items() if name != "choice"}

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in choosing}
        if needed:
            _check_explicit(needed, given.values(), everything=arguments.pop(EVERYTHING.name))
        command(chooser(**given), **arguments)

    # This is where typer looks for a command's options.
    parameters = (choosing | everything | own).values()
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
