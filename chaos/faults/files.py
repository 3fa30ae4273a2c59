"""The spool's files are taken away or replaced under the running server, as by a careless person or a clean-up."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from chaos.load import Sender, find_month
from chaos.rows import Backend, Row, spares_all
from chaos.stage import POLL_S, Stage
from testbed.servers.forebay import ForebayServer
from testbed.servers.ports import free_ports
from testbed.traffic.events import make_event

WAITING_EVENTS = 1_000
SECOND_EVENTS = 300
SECOND_FIRST = 2_000_000_000
"""The first number of the events for the second server: no two events of a trial are the same."""

NOTICED = "spool_files_changed"
UNAVAILABLE = 503

Change = Callable[[Stage], Awaitable[None]]


async def remove_log(stage: Stage) -> None:
    """Remove SQLite's log, and nothing else."""
    _log(stage).unlink()


async def remove_all(stage: Stage) -> None:
    """Remove everything that belongs to the spool."""
    for path in stage.spool_path.parent.glob(f"{stage.spool_path.name}*"):
        path.unlink()


async def replace_by_copies(stage: Stage) -> None:
    """Put copies of the database and its log in their places, as a restored backup would be."""
    # A copy that is made while events come in would be a damaged one.
    await stage.load.pause()
    for path in (stage.spool_path, _log(stage)):
        copy = path.with_name(f"copy-of-{path.name}")
        shutil.copyfile(path, copy)
        copy.rename(path)
    stage.load.resume()


def _log(stage: Stage) -> Path:
    return stage.spool_path.with_name(f"{stage.spool_path.name}-wal")


def then_deliver(change: Change) -> Callable[[Stage], Awaitable[None]]:
    """Make a fault: the files change while events wait; OpenSearch is back, and gets them all before the kill."""

    async def fault(stage: Stage) -> None:
        await _let_events_wait(stage)
        await _see_noticed(stage, change)
        await asyncio.to_thread(stage.proxy.accept)
        await stage.wait_delivered()
        await stage.kill_server()
        await stage.start_server()

    return fault


async def remove_log_and_kill(stage: Stage) -> None:
    """Remove the log while events wait, and kill the server before any of them is delivered."""
    await _let_events_wait(stage)
    await _see_noticed(stage, remove_log)
    await stage.kill_server()
    await stage.start_server()
    await asyncio.to_thread(stage.proxy.accept)


async def start_second(stage: Stage) -> None:
    """Remove the lock while events wait, and start a second server on the same spool; the first is killed at last."""
    await _let_events_wait(stage)
    port = str(free_ports(1)[0])
    with ForebayServer(stage.server.folder, {**stage.server.settings, "SERVER_PORT": port}) as second:

        async def change(stage: Stage) -> None:
            stage.spool_path.with_name(f"{stage.spool_path.name}.lock").unlink()
            await asyncio.to_thread(second.start)

        await _see_noticed(stage, change)
        await _send_to(second, stage)
        await asyncio.to_thread(stage.proxy.accept)
        await stage.wait_delivered()
        await asyncio.to_thread(second.stop)
    await stage.kill_server()
    await stage.start_server()


async def _let_events_wait(stage: Stage) -> None:
    await asyncio.to_thread(stage.proxy.refuse)
    await stage.load.wait_accepted(WAITING_EVENTS)


async def _see_noticed(stage: Stage, change: Change) -> None:
    """Change the files, and see that nothing is taken from soon after on."""
    client = stage.load.client
    changed_at, before = time.monotonic(), len(client.taken)
    await change(stage)
    await stage.wait_unready()
    await stage.wait_logged(NOTICED)
    took_s = time.monotonic() - changed_at
    # The last answers may still be on their way to the clients.
    await asyncio.sleep(POLL_S)
    taken, refused = len(client.taken), client.answers[UNAVAILABLE]
    stage.notes.append(f"not ready {took_s:.2f} s after the change; {taken - before:,} events were taken meanwhile")
    await asyncio.sleep(stage.scale.fault_s)
    stage.expect(len(client.taken) == taken, "events were taken after the change was noticed")
    stage.require(client.answers[UNAVAILABLE] > refused, "no client asked after the change was noticed")


async def _send_to(second: ForebayServer, stage: Stage) -> None:
    client = stage.load.client
    sender = Sender(second.url, second.token(), client.ack, spares_all, find_month)
    events = [make_event(number) for number in range(SECOND_FIRST, SECOND_FIRST + SECOND_EVENTS)]
    await sender.send(events, batch=20, connections=4)
    client.taken |= sender.taken


def _row(
    name: str,
    title: str,
    fault: Callable[[Stage], Awaitable[None]],
    prose: str = "",
    acks: tuple[str, ...] = ("disk", "memory"),
    short_acks: tuple[str, ...] = ("disk",),
) -> Row:
    return Row(name, title, fault, backend=Backend.PROXY, acks=acks, short_acks=short_acks, prose=prose)


ROWS: Sequence[Row] = (
    _row(
        "log-removed",
        "`-wal` of the spool removed while running, with events waiting; then `kill -9`",
        remove_log_and_kill,
        """\
SQLite would go on writing into a file that has no name any more, and every event that was answered after that would
be lost at the next start. So the server compares its files with their paths. It takes nothing more until it is
started again, clients get 503, and the log's pages are written into the database. The server was killed here before
it delivered anything.""",
        ("disk",),
    ),
    _row(
        "spool-removed",
        "all files of the spool removed while running, with events waiting; these are delivered, then `kill -9`",
        then_deliver(remove_all),
        """\
The server delivers the events that it took before. If it had been killed before that, they would be gone with the file
that somebody removed.""",
    ),
    _row(
        "spool-replaced",
        "database and `-wal` replaced by copies while running, with events waiting; the same end",
        then_deliver(replace_by_copies),
        # To the server, the same as files that were removed.
        short_acks=(),
    ),
    _row(
        "lock-removed",
        "lock of the spool removed while running, and a second server started on it; the first one is killed at last",
        start_second,
        "The second server then owns the spool. The first one takes nothing more, and both deliver the waiting events.",
    ),
)
