"""The deliveries of an event that was not taken at the first try, and its end as a dead letter."""

from __future__ import annotations

from msgspec import Struct, structs

from forebay.model import Entry

ATTEMPT_TIMES_MAX = 100


class History(Struct, frozen=True, gc=False):
    """The deliveries of an event so far.

    Attributes:
        attempts: the number of deliveries that did not settle it.
        attempted_at_ms: the times of these; of more than `ATTEMPT_TIMES_MAX` times, the first and the newest.
        strikes: the number of those that ended without an answer while the sink answered others.
        refusals: the number of those that the sink refused while it took others of its index.
        refused_status: the HTTP status of its last refusal, whether that counts or not; 0 if there was none.
    """

    attempts: int = 0
    attempted_at_ms: tuple[int, ...] = ()
    strikes: int = 0
    refusals: int = 0
    refused_status: int = 0

    def tried(self, at_ms: int, strikes: int = 0) -> History:
        """Return the history with one more attempt, which counted as so many strikes."""
        return self.followed_by(History(1, (at_ms,), strikes))

    def refused(self, status: int, *, is_struck: bool) -> History:
        """Return the history with a refusal, in which the last attempt ended."""
        return structs.replace(self, refusals=self.refusals + is_struck, refused_status=status)

    def followed_by(self, later: History) -> History:
        """Return this history and a later one of the same event as one."""
        times = self.attempted_at_ms + later.attempted_at_ms
        if len(times) > ATTEMPT_TIMES_MAX:
            times = (times[0], *times[1 - ATTEMPT_TIMES_MAX :])
        return History(
            self.attempts + later.attempts,
            times,
            self.strikes + later.strikes,
            self.refusals + later.refusals,
            later.refused_status or self.refused_status,
        )


class DeadLetter(Struct, frozen=True):
    """An event that nobody tries to deliver any more, kept with the reason."""

    entry: Entry
    error_type: str
    reason: str
    history: History
    died_at_ms: int
