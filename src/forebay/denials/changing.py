"""Changes of the denial list, by commands: one at a time, and each whole or not at all, whenever its process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from forebay.denials.entries import ENTRIES_MAX, FILE_BYTES_MAX, Denial, Kind, encode_entries, read_entries, read_stamp
from forebay.errors import ListNotChanged
from forebay.spool.files import sync_folder

WAIT_S_MAX = 10.0
RETRY_S = 0.02
MODE = 0o600

Key = tuple[Kind, str]
Known = dict[Key, Denial]


def add(database: Path, path: Path, denials: Iterable[Denial]) -> None:
    """Add entries behind the others; one of the same kind and value is replaced.

    Raises:
        SettingsError: the list cannot be read, or is damaged.
        ListNotChanged: the list is full, or it cannot be written.
    """
    added = {(denial.kind, denial.value): denial for denial in denials}

    def put_last(known: Known) -> Known:
        # A dict keeps the place of a key that it has, and the order of the list is that of its changes.
        return {key: denial for key, denial in known.items() if key not in added} | added

    _change(database, path, put_last)


def remove(database: Path, path: Path, keys: Collection[Key]) -> None:
    """Remove entries, all of them or none.

    Raises:
        SettingsError: the list cannot be read, or is damaged.
        ListNotChanged: one of them is not in the list, or it cannot be written.
    """

    def take_out(known: Known) -> Known:
        for kind, value in keys:
            if (kind, value) not in known:
                raise ListNotChanged(f"the {kind} {value} is not in the list; nothing was changed")
        gone = set(keys)
        return {key: denial for key, denial in known.items() if key not in gone}

    _change(database, path, take_out)


def _change(database: Path, path: Path, edit: Callable[[Known], Known]) -> None:
    try:
        owner = database.stat()
    except OSError as error:
        # In a wrong folder, a list would be written that no server reads.
        raise ListNotChanged(
            f"there is no spool at {database} ({error.strerror}); "
            "run this in the folder and with the settings of the server"
        ) from error
    try:
        with _locked(path.parent):
            now = datetime.now(UTC)
            # Those that have ended leave here, so that nobody has to tidy up.
            known = {(entry.kind, entry.value): entry for entry in read_entries(path) if not entry.is_over(now)}
            _write(path, _encode(edit(known)), owner)
    except OSError as error:
        raise ListNotChanged(f"{path} cannot be written: {error.strerror or error}") from error


def _encode(known: Known) -> bytes:
    data = encode_entries(known.values())
    if len(known) > ENTRIES_MAX or len(data) > FILE_BYTES_MAX:
        limit = f"{ENTRIES_MAX} entries, or {FILE_BYTES_MAX} bytes"
        raise ListNotChanged(f"the list is full: it would have {len(known)} entries, and may have {limit}")
    return data


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the list. It lies on the folder: the list itself is another file after each change."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + WAIT_S_MAX
        while not _try_to_lock(descriptor):
            if time.monotonic() > deadline:
                raise ListNotChanged(f"another command has been changing {folder} for {WAIT_S_MAX:g} s")
            time.sleep(RETRY_S)
        yield
    finally:
        os.close(descriptor)


def _try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, data: bytes, owner: os.stat_result) -> None:
    former = read_stamp(path)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    with os.fdopen(descriptor, "wb") as file:
        if owner.st_uid != os.geteuid():
            _give_to(descriptor, owner)
        file.write(data)
        file.flush()
        # The kernel's clock is coarse: else two changes at once might look like one.
        written_ns = max(time.time_ns(), former.mtime_ns + 1 if former else 0)
        os.utime(descriptor, ns=(written_ns, written_ns))
        os.fsync(descriptor)
    new.replace(path)
    sync_folder(path.parent)


def _give_to(descriptor: int, owner: os.stat_result) -> None:
    """Give a file to the server's user, who alone may read it: root runs commands, too."""
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except PermissionError as error:
        raise ListNotChanged(
            f"the server could not read a list of this user's; run this as its user (uid {owner.st_uid}) or as root"
        ) from error
