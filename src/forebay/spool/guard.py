"""The guard: whether the spool can be written, and the meaning of each failure.

It knows four troubles: the disk is full, files were removed or replaced, the file is damaged, a commit is in doubt.
Each commit of new events asks it twice whether there is any (`refuse_new`, `have_files_changed`).
"""

from __future__ import annotations

import contextlib

import structlog

from forebay.errors import SpoolInDoubt, SpoolUnavailable
from forebay.spool import in_doubt
from forebay.spool.files import SpoolFiles
from forebay.spool.opening import Opened
from forebay.spool.rescue import damage
from forebay.spool.reserve import Reserve, is_disk_full, unless_full

log = structlog.get_logger("forebay.spool")

DISK_FULL = "the disk is full"


class Guard:
    """Watches over an open spool, in the spool's thread.

    Attributes:
        lost: why nothing is written or read any more; empty while all is well.
        must_end: the spool is damaged or in doubt, so the process has to end and leave it to the next start.
    """

    def __init__(self, files: SpoolFiles, opened: Opened, reserve: Reserve, checker: damage.Checker) -> None:
        self._files = files
        self._store = opened.store
        self._wal = opened.wal
        self._open_files = opened.open_files
        self._reserve = reserve
        self._checker = checker
        self._change = ""
        self.lost = ""
        self.must_end = False

    @property
    def refusal(self) -> str:
        """Why no events are taken; empty while they are."""
        return self.lost or self._change or (DISK_FULL if self._reserve.given_up else "")

    def refuse_new(self, *, is_awaited: bool) -> None:
        """Refuse new events that could not be kept. If nobody waits for them, only a full disk refuses them.

        Raises:
            SpoolUnavailable: they are refused.
        """
        if (is_awaited or self._reserve.given_up) and self.refusal:
            raise SpoolUnavailable(self.refusal)

    def have_files_changed(self) -> bool:
        """Return whether the open files are no longer the ones at the spool's paths, and change nothing."""
        return bool(self._open_files.find_changed())

    def check_files(self) -> str:
        """Compare the files at the spool's paths with the open ones; return the consequence if they differ, else ""."""
        changed = self._open_files.find_changed()
        was, self._change = self._change, self._files.describe_change(changed) if changed else ""
        if self._change and not was:
            log.error("spool_files_changed", cause=self._change)
        elif was and not self._change:
            log.info("spool_files_back")
        if changed and self._files.absolute not in changed:
            self._leave_to_next_start()
        return self._change

    def make_room(self) -> None:
        """Try to fill the reserve again if the disk was full."""
        if self._reserve.is_wanted():
            # Pages that the file does not need go back to the disk first.
            with unless_full():
                self._store.vacuum()
            self._store.write_log_back()
            self._reserve.take()

    def explain(self, error: Exception) -> SpoolUnavailable:
        """Return the error for those who wait: nothing was stored, or nobody knows.

        If a failed commit may still be in the log, it is kept from coming back first.
        """
        if damage.is_damage(error):
            self.find_damage(str(error))
        if is_disk_full(error):
            self._reserve.give_up(str(error))
            self._store.write_log_back()
        if not (in_doubt.was_cut_off(error) or in_doubt.may_be_committed(error)):
            return SpoolUnavailable(f"the spool failed: {error}")
        with self._checker.paused():
            is_certain = in_doubt.make_certain(error, self._store, self._files, self._wal)
        if is_certain:
            return SpoolUnavailable(f"the spool failed: {error}")
        self._lose(f"the disk failed in a commit: {error}")
        return SpoolInDoubt(self.lost)

    def find_damage(self, cause: str) -> None:
        """Give up a damaged file: to write on might make it worse, and new rows might be lost in it."""
        if self.lost:
            return
        log.error("spool_damaged", cause=cause)
        # Without the marker the next start finds only the damage that opening the file meets.
        with contextlib.suppress(OSError):
            damage.leave_marker(self._files, cause)
        self._lose(f"the spool is damaged: {cause}")

    def _lose(self, cause: str) -> None:
        self.lost = cause
        self.must_end = True

    def _leave_to_next_start(self) -> None:
        """Write the log into the database, which is at its path, and nothing more.

        A process that opens the database now sees another log, index or lock: to write on beside it would do damage.
        """
        if not self._store.write_log_back():
            return  # a reader is in it; the next call tries again
        self.lost = self._change
        if self._files.wal in self._open_files.find_changed():
            # The next start would take it for the log of this database.
            with contextlib.suppress(OSError):
                self._files.move_wal_away()
