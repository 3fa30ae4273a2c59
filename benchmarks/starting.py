"""Measures the time from the start of a server with millions of pending events to its first 200, and its memory.

python benchmarks/starting.py [EVENTS]
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script finds only its own directory
from benchmarks import processes
from forebay.model import Entry
from forebay.spool import database
from forebay.spool.records import NewGroup, Transaction
from forebay.spool.store import Store
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from testbed.servers.ports import free_ports

EVENTS = 5_000_000
GROUPS_A_COMMIT = 500
SECRET = "the key of a measurement, which guards nothing"  # noqa: S105 - it guards nothing
SIZES = [*[1] * 200, *[10] * 10, *[100] * 3, 1000]
"""Most rows hold one event, as they do under little load; most events come in large groups, as they do under much."""

WATCHED_S = 30.0


def groups(events: int) -> Iterator[NewGroup]:
    """Make groups of mixed sizes until there are so many events."""
    made = row_id = 0
    while made < events:
        row_id += 1
        size = min(SIZES[row_id % len(SIZES)], events - made)
        yield NewGroup(row_id, [make_entry(made + number) for number in range(size)])
        made += size


def make_entry(number: int) -> Entry:
    """Make an entry of about 300 bytes."""
    action = b'{"create":{"_index":"events_bench_2026-11","_id":"%032x"}}\n' % (number * 2**64 // 7)
    return action + (
        b'{"@timestamp":"2026-11-24T12:00:00Z","log_id":"%032x","user_id":"user-%d","event_info":{"page":"/page/%d",'
        b'"event":"click","label":"label %d","param":{"position":%d,"list":[%d,2,3]}}}\n'
        % (number * 2**64 // 7, number % 5000, number % 400, number % 77, number % 31, number)
    )


def fill(path: Path, events: int) -> int:
    """Write a spool; return the number of its rows."""
    rows = 0
    waiting: list[NewGroup] = []
    with contextlib.closing(Store(database.connect(path))) as store:
        store.connection.execute("PRAGMA synchronous = OFF")
        for group in groups(events):
            waiting.append(group)
            if len(waiting) == GROUPS_A_COMMIT:
                store.write(Transaction(inserts=waiting))
                rows += len(waiting)
                waiting = []
        store.write(Transaction(inserts=waiting))
    return rows + len(waiting)


def wait_for_200(port: int) -> None:
    """Send one event again and again until it is accepted."""
    token = make_token(SECRET, "bench", [Scope.WRITE], lifetime_s=3600)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    deadline = time.monotonic() + processes.START_WITHIN_S
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/events", json.dumps({"page": "/", "event": "start"}), headers)
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.005)
    raise processes.BenchmarkError("the server accepted nothing")


def measure(folder: Path, events: int, *, killed: bool) -> dict[str, object]:
    """Start a server on the spool, and end it in order or not."""
    port, nowhere = free_ports(2)
    environment = {
        "SERVER_PORT": str(port),
        "JWT_SECRET": SECRET,
        "SERVER_ENVIRONMENT": "bench",
        # Nothing listens there: every event stays pending.
        "OPEN_SEARCH_DNS": f"http://127.0.0.1:{nowhere}",
        "DATABASE_URL": f"sqlite://{folder / 'spool.db'}",
        "FOREBAY_SHUTDOWN_TIMEOUT_S": "1",
    }
    command = [str(Path(sys.executable).with_name("forebay")), "serve"]
    began = time.monotonic()
    with processes.running(command, core=processes.SERVER_CORE, directory=folder, environment=environment) as server:
        wait_for_200(port)
        first_s = time.monotonic() - began
        first_mib = processes.memory(server.pid).now
        time.sleep(WATCHED_S)
        peak_mib = processes.memory(server.pid).peak
        if killed:
            server.kill()
    return {
        "events": events,
        "first_200_s": round(first_s, 2),
        "mib_then": round(first_mib),
        f"mib_peak_{WATCHED_S:.0f}_s_later": round(peak_mib),
    }


def main() -> None:
    """Measure a first start, one after an end in order, and one after a kill."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder)
        began = time.monotonic()
        rows = fill(path / "spool.db", events)
        size = (path / "spool.db").stat().st_size / 1024 / 1024
        print(f"{events} events in {rows} rows, {size:.0f} MiB, written in {time.monotonic() - began:.0f} s")
        for case, killed in (("after a first start", True), ("after a kill", False), ("after an end in order", False)):
            print(case, measure(path, events, killed=killed))


if __name__ == "__main__":
    main()
