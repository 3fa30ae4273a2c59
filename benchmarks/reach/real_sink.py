"""Measures how fast Forebay fills a real OpenSearch, against the best that a bare bulk loader reaches.

python -m benchmarks.reach.real_sink

OpenSearch has core 0 for itself; Forebay and its clients, or the loader, share core 1. Both send documents of the same
form, in bulks of 1,000, into an index that is made anew for each turn. OpenSearch itself counts the documents. The rate
is that between a tenth and nine tenths of them, so that neither start nor end counts.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import clients, processes
from benchmarks.candidates import DISK, HERE, Launch
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError
from benchmarks.reach import alone
from benchmarks.reach.goals import Finding, Goal, table
from testbed.servers.opensearch import OpenSearchServer
from testbed.servers.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS_A_SECOND = 10_000
"""About as many as OpenSearch takes on one core."""

WARM_UP_TURNS = 2
"""So long Java compiles, and OpenSearch becomes faster."""

BULK = 1_000
BATCH = 100
SENDERS = 8
CONNECTIONS = (1, 2, 4, 8)
"""Numbers of connections that the loader tries; the best of them goes on."""

JAVA_OPTIONS = "-Xms1g -Xmx1g"
INDEX = "events_bench_*"
SAMPLE_S = 0.1
TURN_WITHIN_S = 120.0
GOAL = Goal("events/s into a real OpenSearch, against a bare bulk loader", "times", 0.95, 1.0)

Document = dict[str, Any]


class Sample(NamedTuple):
    """The documents that OpenSearch has indexed at a moment, and the processor time that it has used."""

    at: float
    documents: int
    cpu_s: float


class Rate(NamedTuple):
    """How fast OpenSearch took documents in the middle of a turn, and the share of its core that it used for it."""

    per_s: int
    per_cpu_s: int
    cpu: float


class Node:
    """A running OpenSearch that is asked by a client of its own."""

    def __init__(self, server: OpenSearchServer) -> None:
        self.port = int(server.url.rpartition(":")[2])
        self._pid = server.pid

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the JSON of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def indexed(self) -> int:
        """Return how many documents it has indexed, without a refresh."""
        found = self.ask("GET", f"/{INDEX}/_stats/indexing?filter_path=_all.primaries.indexing.index_total")
        return int(found["_all"]["primaries"]["indexing"]["index_total"]) if found else 0

    def forget(self) -> None:
        """Delete the documents; the index template stays."""
        self.ask("DELETE", f"/{INDEX}")

    def some_documents(self) -> list[Document]:
        """Return documents as they were sent."""
        self.ask("POST", f"/{INDEX}/_refresh")
        found = self.ask("POST", f"/{INDEX}/_search", {"size": 5 * BULK})
        return [{"index": hit["_index"], "source": hit["_source"]} for hit in found["hits"]["hits"]]

    def watch(self, documents: int) -> Rate:
        """Watch it until it has so many documents; return how fast it took them."""
        deadline = time.monotonic() + TURN_WITHIN_S
        samples = [self._sample()]
        while samples[-1].documents < documents:
            if samples[-1].at > deadline:
                raise BenchmarkError(f"OpenSearch has {samples[-1].documents} of {documents} documents after all")
            time.sleep(SAMPLE_S)
            samples.append(self._sample())
        middle = [sample for sample in samples if documents / 10 <= sample.documents <= documents * 9 / 10]
        first, last = middle[0], middle[-1]
        taken, used_s = last.documents - first.documents, last.cpu_s - first.cpu_s
        return Rate(round(taken / (last.at - first.at)), round(taken / used_s), round(used_s / (last.at - first.at), 2))

    def _sample(self) -> Sample:
        return Sample(time.monotonic(), self.indexed(), processes.cpu_seconds(self._pid))


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """Start an OpenSearch on a core of its own."""
    with OpenSearchServer(OpenSearchServer.install(), JAVA_OPTIONS) as server:
        with on_core(SERVER_CORE):
            server.start()
        with on_core(LOAD_CORE):
            yield Node(server)


def by_forebay(into: Node, work: Path, documents: int) -> Rate:
    """Send events to a fresh Forebay; return the rate at which their documents arrive."""
    into.forget()
    # Made before, so that the clients are always ahead of OpenSearch.
    batches = iter([clients.body(start, BATCH, batch=True) for start in range(0, documents, BATCH)])
    with tempfile.TemporaryDirectory(dir=work) as folder:
        launch = Launch(Path(folder), free_ports(1)[0], into.port)
        environment = DISK.environment(launch)
        with processes.running(
            DISK.command(launch), core=LOAD_CORE, directory=launch.directory, environment=environment
        ) as server:
            processes.wait_until_up(server, launch.port)
            with ThreadPoolExecutor(SENDERS) as pool:
                sent = [pool.submit(send_batches, launch.port, batches) for _ in range(SENDERS)]
                rate = into.watch(documents)
                for each in sent:
                    each.result()
    return rate


def send_batches(port: int, batches: Iterator[bytes]) -> None:
    """Send batches over one connection until none is left."""
    (client,) = clients.make(1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        for batch in batches:
            status, answer = clients.post(connection, client, "/events/batch", batch)
            if status != http.client.OK:
                raise BenchmarkError(f"the server answers {status}: {answer[:500]!r}")


def by_loader(into: Node, work: Path, documents: int, models: list[Document], connections: int) -> Rate:
    """Send ready-made bulks; return the rate at which the documents arrive."""
    into.forget()
    bulks = work / "bulks"
    write_bulks(bulks, models, documents)
    program = str(HERE / "reach" / "bulk_loader.py")
    command = [sys.executable, program, str(into.port), str(bulks), str(connections)]
    with processes.running(command, core=LOAD_CORE, directory=work) as loader:
        rate = into.watch(documents)
        if loader.wait():
            raise BenchmarkError("the bulk loader failed")
    return rate


def write_bulks(path: Path, models: list[Document], documents: int) -> None:
    """Write bulks of documents like those that Forebay sent, each with an id of its own."""
    numbers = itertools.cycle(models)
    with path.open("w") as file:
        for number in range(1, documents + 1):
            model = next(numbers)
            log_id = clients.log_id()
            action = {"create": {"_index": model["index"], "_id": log_id}}
            for line in (action, model["source"] | {"log_id": log_id}):
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            if number % BULK == 0:
                file.write("\n")


def measure(work: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Warm up, find the best number of connections for the loader, and let both take turns."""
    documents = seconds * DOCUMENTS_A_SECOND
    with node() as into:
        by_forebay(into, work, documents)
        models = into.some_documents()
        by_loader(into, work, WARM_UP_TURNS * documents, models, CONNECTIONS[-1])
        tried = {number: by_loader(into, work, documents, models, number).per_s for number in CONNECTIONS}
        best = max(tried, key=lambda number: tried[number])
        runs = [
            {
                "round": number + 1,
                "forebay": by_forebay(into, work, documents)._asdict(),
                "loader": by_loader(into, work, documents, models, best)._asdict(),
            }
            for number in range(rounds)
        ]
    return {"documents": documents, "tried": tried, "connections": best, "runs": runs}


def findings(result: dict[str, Any]) -> list[Finding]:
    """Return the ratio of each round."""
    return [Finding(GOAL, [run["forebay"]["per_s"] / run["loader"]["per_s"] for run in result["runs"]])]


def render(result: dict[str, Any]) -> str:
    """Show the ratio of each round, and the rates."""
    head = "| round |  | documents/s | documents per CPU second of OpenSearch | OpenSearch's share of its core |\n"
    rows = [
        f"| {run['round']} | {name} | {run[name]['per_s']:,} | {run[name]['per_cpu_s']:,} | {run[name]['cpu']:.0%} |\n"
        for run in result["runs"]
        for name in ("forebay", "loader")
    ]
    tried = ", ".join(f"{per_s:,} with {number}" for number, per_s in result["tried"].items())
    return "\n".join(
        [
            table(findings(result)),
            head + "| ---: | --- | ---: | ---: | ---: |\n" + "".join(rows),
            f"The loader used {result['connections']} connections; tried before, documents/s: {tried}.\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(alone.run(measure, render, str(__doc__)))
