"""`forebay deny`: the denial list, by which an operator shuts senders out."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from forebay.cli.options import AsJson, Days, Until, Why, check_names, choose_end
from forebay.cli.output import format_time, print_json, print_table, say
from forebay.denials import changing
from forebay.denials.entries import Denial, Kind, read_entries
from forebay.denials.networks import write_network
from forebay.settings import load_settings

app = typer.Typer(
    help="Shut out devices, users and addresses.\n\n"
    "A list beside the spool, in force in all workers within two seconds, and after a restart."
)

COLUMNS = ("at", "kind", "value", "reason", "until")


class SenderKind(enum.StrEnum):
    """A kind of sender that `remove` takes; tokens have a command of their own, which shows none."""

    DEVICE = "device"
    SUB = "sub"
    ADDRESS = "address"


@app.command()
def device(
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE", help="Device-Uuid of its requests.")],
    *,
    reason: Why = "",
    until: Until = None,
    days: Days = None,
) -> None:
    """Shut out devices, by the Device-Uuid that they send."""
    add_denials(Kind.DEVICE, devices, reason, choose_end(until, days))


@app.command()
def sub(
    subs: Annotated[list[str], typer.Argument(metavar="SUB", help="User: the sub of the tokens.")],
    *,
    reason: Why = "",
    until: Until = None,
    days: Days = None,
) -> None:
    """Shut out users: all their tokens are revoked, also those to come."""
    add_denials(Kind.SUB, subs, reason, choose_end(until, days))


@app.command()
def address(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="IPv4 or IPv6, or a network of them.")],
    *,
    reason: Why = "",
    until: Until = None,
    days: Days = None,
) -> None:
    """Shut out addresses or networks, such as 192.0.2.0/24."""
    add_denials(Kind.ADDRESS, map(_read_network, addresses), reason, choose_end(until, days))


@app.command("list")
def list_denials(*, as_json: AsJson = False) -> None:
    """List everybody who is shut out, newest first."""
    show_denials(tuple(Kind), as_json=as_json)


@app.command()
def remove(
    kind: Annotated[SenderKind, typer.Argument(metavar="device|sub|address", show_default=False)],
    values: Annotated[list[str], typer.Argument(metavar="VALUE", help="As the list shows it.")],
) -> None:
    """Let senders in again."""
    names = [_read_network(value) if kind is SenderKind.ADDRESS else value for value in values]
    remove_denials((Kind(kind), name) for name in names)


def add_denials(kind: Kind, values: Iterable[str], reason: str, until: datetime | None) -> None:
    """Add entries of one kind to the list, and say so.

    Raises:
        typer.BadParameter: a value or the reason is no text for the list.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    write_denials([Denial(kind, value, reason, now, until) for value in values])


def write_denials(denials: Collection[Denial]) -> None:
    """Add entries to the list, and say so.

    Raises:
        typer.BadParameter: a value or a reason is no text for the list.
    """
    check_names(denial.value for denial in denials)
    check_names(denial.reason for denial in denials if denial.reason)
    settings = load_settings()
    changing.add(settings.database_url, settings.denials_path, denials)
    for denial in denials:
        end = "" if denial.until is None else f" until {_format(denial.until)}"
        say(f"{denial.kind} {denial.value} shut out{end}, in all workers within two seconds")


def remove_denials(keys: Iterable[tuple[Kind, str]]) -> None:
    """Remove entries from the list, and say so.

    Raises:
        typer.BadParameter: a value cannot be in the list.
        ListNotChanged: one of them is not in the list.
    """
    wanted = list(dict.fromkeys(keys))
    check_names(value for _, value in wanted)
    settings = load_settings()
    changing.remove(settings.database_url, settings.denials_path, wanted)
    for kind, value in wanted:
        say(f"{kind} {value} let in again, in all workers within two seconds")


def show_denials(kinds: Collection[Kind], *, as_json: bool) -> None:
    """Print the entries of some kinds that are in force, newest first."""
    now = datetime.now(UTC)
    entries = [entry for entry in read_entries(load_settings().denials_path) if not entry.is_over(now)]
    shown = [_describe(entry) for entry in reversed(entries) if entry.kind in kinds]
    if as_json:
        for entry in shown:
            print_json(entry)
        return
    if shown:
        print_table(COLUMNS, [[entry[column] for column in COLUMNS] for entry in shown])
    say(f"{len(shown)} of {len(entries)} entries of the denial list")


def _describe(entry: Denial) -> dict[str, Any]:
    return {
        "kind": entry.kind.value,
        "value": entry.value,
        "reason": entry.reason,
        "at": _format(entry.at),
        "until": None if entry.until is None else _format(entry.until),
    }


def _format(time: datetime) -> str:
    return format_time(int(time.timestamp() * 1000))


def _read_network(text: str) -> str:
    try:
        network = write_network(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None
    if network.endswith("/0"):
        raise typer.BadParameter(f"{text!r} would shut out everybody")
    return network
