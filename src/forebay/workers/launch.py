"""The start of several workers: what can be refused is refused here, then this process becomes the supervisor."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from forebay import server
from forebay.errors import SettingsError
from forebay.secret import resolve_secret
from forebay.settings import Settings
from forebay.sinks.selection import make_sink
from forebay.telemetry.logs import configure_logs
from forebay.workers.orders import SupervisorOrder, WorkerOrder


def run(settings: Settings) -> NoReturn:
    """Become the supervisor, which serves until a signal ends it.

    Raises:
        SettingsError: a setting does not allow it: no secret can be kept, the port is taken, a file cannot be read.
    """
    configure_logs(settings.log_format, settings.log_level)
    secret = resolve_secret(settings)
    server.warn(secret)
    listener = server.listen(settings)
    # It is the workers that listen on it, and they come and go.
    os.set_inheritable(listener.fileno(), True)  # noqa: FBT003 - takes no keyword
    announcement = server.announce(settings, secret, listener, asyncio.run(_find_sink_place(settings)))
    folder = _make_folder()
    order = SupervisorOrder(
        settings.workers,
        listener.fileno(),
        folder,
        settings.log_format,
        settings.log_level,
        announcement,
        pickle.dumps(WorkerOrder(settings, secret, listener.fileno(), folder)),
    )
    _become_supervisor(order)


def _become_supervisor(order: SupervisorOrder) -> NoReturn:
    """Replace this program by the supervisor's, which takes half the memory of one that has read the settings."""
    reader, writer = os.pipe()
    # All of it fits into the pipe, which holds at least 64 KiB on Linux (pipe(7)); the settings are a few of them.
    os.write(writer, pickle.dumps(order))
    os.close(writer)
    os.set_inheritable(reader, True)  # noqa: FBT003 - takes no keyword
    sys.stdout.flush()
    # -P: no module is imported from the working directory.
    os.execv(  # noqa: S606 - of ourselves, and there is nothing in it that a shell could read
        sys.executable,
        [sys.executable, "-P", "-m", "forebay.workers.supervisor", str(reader)],
    )


def _make_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="forebay-"))
    except OSError as error:
        raise SettingsError(
            f"FOREBAY_WORKERS: more than one needs a folder for temporary files (TMPDIR): {error}"
        ) from error


async def _find_sink_place(settings: Settings) -> str:
    sink = make_sink(settings)
    await sink.close()
    return sink.location
