"""Renders the results as docs/benchmarks.md."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import formats, speed
from benchmarks.reach import goals, parts

Run = dict[str, Any]

MIB_IN_MB = 1.048576
OTHERS_TOLERATED = 0.1
LOADS = {speed.SINGLE: "single events", speed.BATCH: "batches of 100", speed.LARGE_BATCH: "batches of 1,000"}

HEAD = """\
# Benchmarks

Made by `make bench` from its measurements; edits are overwritten. The raw numbers are in
[`benchmarks/results/latest.json`](../benchmarks/results/latest.json).

Every server has one core. What counts is the events that it takes for each second of its processor time: that depends
least on whatever else the machine does.
"""

GOALS = """\
## Goals

*Times* is a ratio of events per second of processor time between two turns of the same round; into a real OpenSearch,
which is on the other core, of events/s.
"""

CANDIDATES = """\
## Collectors

Medians of events per second of processor time. *Lost* are the events that were answered with 200 before a `kill -9`
and did not reach OpenSearch, even after a new start on the same directory.
"""

FORMATS = """\
## Formats

The same events in batches of {events}, over {connections} connections, to one server: medians of events per second of
processor time, and of the ratio to native batches in the same round, measured {when}. Documents differ in size, and
so do bodies.
"""

FIGURES = """\
## Figures

Medians over the rounds. *Load CPU* is the share of the other core that `wrk` and the stand-in needed; *missing* are
accepted events that never reached the stand-in.
"""

METHOD = """\
## Method

- Core {server_core} runs the server, core {load_core} the load generator (`wrk`, one thread) and a stand-in for
  OpenSearch that counts documents and answers at once. Everything talks over the loopback.
- In each of {rounds} rounds every server is started afresh for every load, warmed up for {warm_up} s and measured
  for {seconds} s. The order moves on by one with each round.
- An event has about {event_bytes} bytes, a `log_id` of its own (UUIDv7) and one of {users:,} tokens.
- wrk keeps {connections}.
  It sends on each as soon as it is answered, so latencies are those of a saturated server.
- Only a 200 counts; any other answer ends the measurement without a result. Before each turn a false token has to get a
  401 from each server that checks tokens.
- All send bulks of up to 1,000 events, or after {interval} s. More about them, and their settings:
  [the collectors](../benchmarks/peers/README.md).
- The bare server is no collector: it reads address, header lines and body, and answers. It is the limit of Python's
  fastest parser. The Rust collector does the same job as `ack=memory`, and like Forebay it remembers tokens.
- The OpenTelemetry Collector gets its own form (OTLP, protobuf) of the same events, and has less to check.
- Before the kill, {kill_connections} connections send single events for {kill_s:.0f} s. *Away*: the stand-in refuses
  everything until the kill.
- Beside speed (the code of each is in [`benchmarks/reach`](../benchmarks/reach)): latency comes from a generator that
  keeps a constant rate and counts from the time at which a request was due. Bytes are those that the kernel counts for
  the process. OpenSearch has a core of its own, and Forebay shares the other with its clients; the bare loader sends
  ready-made bulks over the number of connections that was best. The pending events are of an index that the stand-in
  blocks, while it takes those of the load. With two workers, the time of all processes counts.
- Other work on the load's core lets answers gather, and a server that answers one by one then looks better than on an
  idle machine.
"""

AGAIN = """\
## Run it again

```sh
make bench
```

It needs Linux, two cores, `taskset`, `wrk`, Go, Cargo and a C compiler, and takes about {minutes} minutes once all is
built; a server that cannot be built is left out. `.venv/bin/python benchmarks/run.py --help` lists the options: a part
alone, another version of Forebay to compare with (`--before`), or a quick look (`--quick`).
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay out a table with the first column to the left and numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def thousands(value: float) -> str:
    """Write a number with as many digits as its spread lets one believe."""
    return f"{round(value, 2 - len(str(int(value))) + 1):,.0f}" if value >= 1000 else f"{value:,.0f}"  # noqa: PLR2004


def reached(results: Run) -> str:
    """Show the goals; the first thing to see is whether they are met."""
    found = speed.findings(results["speed"]) + parts.findings(results["reach"])
    unmeasured = [f"Not measured: {name}, because {reason}.\n" for name, reason in results["unmeasured"].items()]
    return "\n".join([GOALS, goals.table(found), *unmeasured]) if found or unmeasured else ""


def collectors(results: Run) -> str:
    """Show each candidate with its promise, its rates and its losses."""
    head = ["", "a 200 means", "checks", *LOADS.values(), "lost by `kill -9`", "the same, OpenSearch away"]
    rows = []
    for name, about in results["candidates"].items():
        medians = []
        for events in LOADS:
            rates = [speed.per_cpu_s(run) for run in speed.of(results["speed"], name, events)]
            medians.append(thousands(statistics.median(rates)) if rates else "")
        losses = [lost(results["kills"], name, sink_away=away) for away in (False, True)]
        rows.append([about["title"], about["means"], about["checks"], *medians, *losses])
    left_out = [f"Left out: {name}, because {reason}.\n" for name, reason in results["left_out"].items()]
    return "\n".join([CANDIDATES, table(head, rows), *left_out])


def lost(kills: list[Run], name: str, *, sink_away: bool) -> str:
    """Show how many answered events one kill has lost."""
    for kill in kills:
        if kill["candidate"] == name and kill["sink_away"] == sink_away:
            return f"{kill['lost']:,} of {kill['answered']:,}"
    return ""


def wire_formats(results: Run) -> str:
    """Show the rates of the wire formats."""
    if not results["formats"]:
        return ""
    runs = results["formats"]["runs"]
    head = ["", "events per CPU second", "from … to", "against native batches"]
    text = FORMATS.format(events=formats.EVENTS, connections=formats.CONNECTIONS, when=results["formats"]["when"])
    return "\n".join([text, table(head, formats.rows(runs))])


def figures(results: Run) -> str:
    """Show the absolute figures of each candidate and load."""
    head = ["", "load", "events per CPU second", "from … to", "events/s", "server CPU", "load CPU", "p99 ms", "peak MB"]
    head += ["accepted", "missing"]
    rows = []
    for events, title in LOADS.items():
        for name, about in results["candidates"].items():
            if runs := speed.of(results["speed"], name, events):
                rows.append([about["title"], title, *figures_of(runs)])
    return "\n".join([FIGURES, disturbance(results["speed"]), table(head, rows)]) if rows else ""


def figures_of(runs: list[Run]) -> list[str]:
    """Summarise the turns of one candidate under one load."""
    rates = [speed.per_cpu_s(run) for run in runs]
    return [
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} … {max(rates):,.0f}",
        f"{statistics.median(run['requests_per_s'] * run['events_per_request'] for run in runs):,.0f}",
        f"{statistics.median(run['server_cpu'] for run in runs):.0%}",
        f"{statistics.median(run['wrk_cpu'] + run['sink_cpu'] for run in runs):.0%}",
        f"{statistics.median(run['p99_ms'] for run in runs):.0f}",
        f"{max(run['rss_peak_mib'] for run in runs) * MIB_IN_MB:.0f}",
        f"{sum(run['accepted'] for run in runs):,}",
        f"{sum(run['missing'] for run in runs):,}",
    ]


def disturbance(runs: list[Run]) -> str:
    """Warn if other work had more than a little of either core."""
    server = max(run["server_core_others"] for run in runs)
    load = max(run["load_core_others"] for run in runs)
    if max(server, load) <= OTHERS_TOLERATED:
        return ""
    return f"""\
**The machine was not idle.** In the worst turn other work had {server:.0%} of the server's core, and {load:.0%} of the
load's core: that lowers events/s and raises latencies. Events per CPU second suffer less.
"""


def machine(results: Run) -> str:
    """Show the machine and the versions."""
    it = results["machine"]
    cores = f"{it['cores']} cores{' of a virtual machine' if it['virtual'] else ''}"
    rows = [
        ["measured", results["when"]],
        ["processor", f"{it['cpu']}, {cores}"],
        ["memory", f"{it['memory_gib']:.0f} GiB"],
        ["kernel", it["kernel"]],
        ["disk", f"{it['file_system']}; 4 KiB and `fdatasync`: {it['sync_ms']:.2f} ms (median)"],
        *(
            [name, ", ".join(f"{part} {version}" for part, version in parts.items())]
            for name, parts in results["versions"].items()
        ),
    ]
    return "## Machine\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in [["", ""], ["---", "---"], *rows])


def render(results: Run) -> str:
    """Write the whole page."""
    settings = results["settings"]
    sections = [HEAD, reached(results), collectors(results), wire_formats(results), figures(results), machine(results)]
    sections += [METHOD.format(**settings), AGAIN.format(minutes=results["minutes"])]
    return "\n".join(section for section in sections if section)
