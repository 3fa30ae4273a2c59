"""The keys that a provider publishes at an address: fetched in the background, and kept while the provider is down.

Requests never fetch. A token with a `kid` that is not known makes the next fetch come sooner, however many there are of
them: there are at least ten seconds between two fetches. Whoever has such a token can wait for that fetch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import structlog

from forebay.errors import KeyNotKnown, Rejection
from forebay.telemetry.counters import Counters
from forebay.tokens.keys import Key, KeySetUnusable, read_key_set

log = structlog.get_logger("forebay.tokens")

ANSWER_BYTES_MAX = 1024 * 1024
"""Bytes of a set of keys. A larger answer is none."""

WAITING_MAX = 1_000
"""Requests that may wait for the keys of one provider. Beyond it, clients get 503."""

NAMES_MAX = 1_000
"""How many unknown `kid` are remembered. Beyond it, a token is told to come again and not that it is not valid."""

RETRY_AFTER_S = 10
WARNING_S = 60
"""The least time between two warnings about one provider."""


class Intervals(NamedTuple):
    """Times of fetching, in seconds.

    Attributes:
        asking_s: the least time between the beginnings of two fetches.
        refresh_s: the time between two fetches if nobody asks; `Cache-Control` of the answer may set another one.
        refresh_s_min: least of those.
        refresh_s_max: most of those.
        timeout_s: the limit of one fetch.
    """

    asking_s: float = 10
    refresh_s: float = 300
    refresh_s_min: float = 60
    refresh_s_max: float = 3600
    timeout_s: float = 5


INTERVALS = Intervals()


class PublishedKeys:
    """The newest set of keys of one provider that could be used."""

    def __init__(
        self,
        issuer: str,
        url: str,
        algorithms: Collection[str],
        on_key_gone: Callable[[], None],
        counters: Counters,
        intervals: Intervals = INTERVALS,
    ) -> None:
        """Take the keys at `url` that go with one of `algorithms`.

        `on_key_gone` is called if the provider has removed a key: what was signed with it is not to be taken any more.
        """
        self._issuer = issuer
        self._url = url
        self._algorithms = algorithms
        self._on_key_gone = on_key_gone
        self._counters = counters
        self._intervals = intervals
        self._keys: Mapping[str | None, Sequence[Key]] = {}  # by `kid`; by None all of them
        self._unknown: Collection[str] = ()  # every `kid` that was asked for and that the newest set does not have
        self._asked: dict[str, None] = {}  # every `kid` that was asked for since the newest fetch began
        self._wanted = asyncio.Event()
        self._next: asyncio.Future[None] | None = None  # the end of the next fetch to begin, if somebody waits for it
        self._waiting = 0
        self._began_at = 0.0  # when the newest fetch began, by the monotonic clock
        self._proved_at = 0.0  # when the one began that gave the newest set
        self._failures = 0  # in a row
        self._warned_at: float | None = None

    def find(self, key_id: str | None, *, is_last_try: bool) -> Sequence[Key]:
        """Return the keys with a `kid`, or all for a token that has none; none if the provider has no such key.

        Raises:
            KeyNotKnown: the provider has to be asked first.
            Rejection: 503, it never gave any keys, too many wait for it, or this is the last try.
        """
        found = self._keys.get(key_id)
        if found is not None:
            return found
        # The answer to the last question holds as long as no other question may be asked. It also holds for those who
        # have waited for it, however late they come to hear it.
        is_proved = time.monotonic() < self._proved_at + self._intervals.asking_s
        if key_id in self._unknown and (is_proved or (is_last_try and not self._failures)):
            return ()
        self._ask(key_id)
        never_answers = not self._keys and self._failures
        if never_answers or is_last_try or self._waiting >= WAITING_MAX:
            raise _not_now()
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        fetched = self._next
        raise KeyNotKnown(lambda: self._wait(fetched))

    def _ask(self, key_id: str | None) -> None:
        if key_id is not None and len(self._asked) < NAMES_MAX:
            self._asked[key_id] = None
        self._wanted.set()

    async def _wait(self, fetched: asyncio.Future[None]) -> None:
        self._waiting += 1
        try:
            limit_s = self._intervals.asking_s + 2 * self._intervals.timeout_s
            await asyncio.wait({fetched}, timeout=limit_s)
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Fetch the keys, again and again until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._intervals.timeout_s)
        # No compressed answer, which could be small and become large.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with aiohttp.ClientSession(
                timeout=timeout, headers=headers, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as session:
                while True:
                    refresh_s = await self._refresh(session)
                    await self._sleep(refresh_s)
        finally:
            self._release(self._next)

    async def _sleep(self, refresh_s: float) -> None:
        """Sleep until the next fetch is due: earlier if somebody asks, but never before it is allowed."""
        now = time.monotonic()
        allowed_at, due_at = self._began_at + self._intervals.asking_s, self._began_at + refresh_s
        await asyncio.sleep(allowed_at - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due_at - max(now, allowed_at)):
                await self._wanted.wait()

    async def _refresh(self, session: aiohttp.ClientSession) -> float:
        """Fetch the keys once; return the time after which to do so again."""
        self._began_at = time.monotonic()
        asked, self._asked = self._asked, {}
        fetched, self._next = self._next, None
        self._wanted.clear()
        self._counters.key_fetches[self._issuer] += 1
        try:
            body, lifetime_s = await self._fetch(session)
            self._take(read_key_set(body, self._algorithms), asked)
        except Exception as error:  # noqa: BLE001 - libraries have many for bad answers, and none may end the fetching
            self._failed(error)
            return self._intervals.asking_s
        finally:
            self._release(fetched)
        return lifetime_s

    async def _fetch(self, session: aiohttp.ClientSession) -> tuple[bytes, float]:
        """Return the provider's answer, and how long it may be kept."""
        # A redirect is not followed: nobody but the settings says where keys come from.
        async with session.get(self._url, allow_redirects=False) as response:
            if response.status != HTTPStatus.OK:
                raise KeySetUnusable(f"the answer has the status {response.status}")
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise KeySetUnusable(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            return bytes(body), self._read_lifetime(response.headers.get("Cache-Control", ""))

    def _read_lifetime(self, cache_control: str) -> float:
        match = re.search(r"(?:^|[\s,])max-age=\"?(\d{1,9})", cache_control, flags=re.IGNORECASE)
        wanted = float(match[1]) if match else self._intervals.refresh_s
        return min(max(wanted, self._intervals.refresh_s_min), self._intervals.refresh_s_max)

    def _take(self, keys: Sequence[Key], asked: Mapping[str, None]) -> None:
        """Use a new set of keys from now on."""
        named: dict[str | None, list[Key]] = {None: [*keys]}
        for key in keys:
            if key.key_id is not None:
                named.setdefault(key.key_id, []).append(key)
        if not all(key in keys for key in self._keys.get(None, ())):
            self._on_key_gone()
        self._keys = named
        still_unknown = (key_id for key_id in (*asked, *self._unknown) if key_id not in named)
        self._unknown = dict.fromkeys(itertools.islice(still_unknown, NAMES_MAX))
        self._proved_at = self._began_at
        self._failures = 0
        self._warned_at = None
        self._counters.keys_fetched_at[self._issuer] = time.time()

    def _failed(self, error: Exception) -> None:
        """Count a failure, and tell the operator now and then; the keys that there are stay in use."""
        self._failures += 1
        self._counters.key_fetch_failures[self._issuer] += 1
        now = time.monotonic()
        if self._warned_at is None or now >= self._warned_at + WARNING_S:
            self._warned_at = now
            reason = str(error) or type(error).__name__
            log.warning("keys_not_fetched", issuer=self._issuer, reason=reason, has_keys=bool(self._keys))

    @staticmethod
    def _release(fetched: asyncio.Future[None] | None) -> None:
        if fetched is not None and not fetched.done():
            fetched.set_result(None)


def _not_now() -> Rejection:
    """Return the refusal of a token that may be good: its client keeps the events, and sends them again."""
    detail = "the key of the token is not known yet; its provider has to be asked"
    headers = (("Retry-After", str(RETRY_AFTER_S)),)
    return Rejection(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers)
