"""Renders the results as docs/benchmarks.md."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import candidates

if TYPE_CHECKING:
    from collections.abc import Iterable

Run = dict[str, Any]

GOALS = {"disk": 5.0, "memory": 8.0}
MEMORY_GOAL_MB = 150
MIB_IN_MB = 1.048576
OTHERS_TOLERATED = 0.1

HEAD = """\
# Benchmarks

Made by `make bench` from its measurements; edits are overwritten. The raw numbers are in
[`benchmarks/results/latest.json`](../benchmarks/results/latest.json).
"""

SINGLES = """\
`POST /events`, one event a request, {connections} connections.
"""

BATCHES = """\
`POST /events/batch` with {batch_size} events a request, {batch_connections} connections, Forebay alone.
"""

MEMORY = """\
The stand-in refuses every bulk, so all events stay: the channel takes its 100,000, the others wait in the spool.
The server's own metrics, read right after its memory, count the events in channel and spool.
"""

METHOD = """\
## Method

- Core {server_core} runs the server under test, core {load_core} the load generator (`wrk`, one thread,
  {connections} connections) and a counting stand-in for OpenSearch (`benchmarks/counting_sink.py`). Everything
  talks over the loopback.
- The candidates take turns within each of {rounds} rounds, in an order that moves on by one each round. Each
  turn starts the server afresh on an empty database, warms it up for {warm_up} s and measures for {seconds} s. The
  clock starts once all connections are open.
  A ratio compares two turns of the same round, so anything that slows both alike cancels out; anything that hits
  one turn does not.
- Each request carries one event of about {event_bytes} bytes with a `log_id` of its own (UUIDv7 layout) and one
  of {users} tokens (HS256), in turn, so that remembering the last token helps nobody.
- Only a 200 counts. An answer of 400 or more, or a socket error, ends the measurement without a result; before
  each turn a probe makes sure that a good event gets a 200 and a false token a 401.
- After each turn the script waits until the stand-in has counted every accepted document and no more come.
  *Missing* are those that never came. The up to {connections} requests that were in flight when `wrk` stopped may
  arrive on top, so a loss is certain to show only if it is larger than that.
- The plain collector (`benchmarks/plain_collector.py`) makes the same token check, validates the same fields
  and sends documents of the same form, in bulks of up to 1,000 events or {interval} s from a queue in memory.
  Nothing of it is on disk: it answers like `ack=memory`, also when it is compared with `ack=disk`.
- Forebay keeps tokens that it has verified, so after the warm-up it verifies none of them again; the plain
  collector verifies the token of each request.
- Forebay runs with its defaults, but for its addresses, metrics without a token, and the bulk interval, which is
  {interval} s for all.
- CPU is a share of one core, by the kernel's own accounts. *Others there* is everything else that ran on the same core.
  Events per CPU second depend less on such neighbours, but leave out the wait for the disk; the goals are
  about events/s.
- *wrk sleeps* counts, for each request, how often `wrk` had nothing to do and was put to sleep. Over the loopback
  the server pays for waking it up with the next answer. Answers that leave in a burst, as after a commit, wake
  it once; answers that leave one by one wake it each time. Other work on the load's core delays `wrk`, so that
  it finds more answers at once and sleeps less: that makes a server which answers one by one look faster than
  it is on an idle machine. It is also how
  `ack=disk` can come out ahead of `ack=memory`, although it does more.
- Latencies are those of a closed loop at full load: {connections} clients that each send the next event as soon
  as the last is answered. They show a saturated server, and not one under an ordinary load.
- The stand-in answers at once, with the status of each document and nothing else. A real OpenSearch takes
  longer, and at these rates it would be the bottleneck; this measures the collector.
"""

AGAIN = """\
## Run it again

```sh
make bench
```

It needs Linux, two cores, `taskset` and `wrk`, and takes about {minutes} minutes. `python benchmarks/run.py --help`
lists the options; `--only plain,disk` measures a part and writes nothing.
"""


def median(runs: Iterable[Run], key: str) -> float:
    """Take the median of one number over runs."""
    return float(statistics.median(run[key] for run in runs))


def of(runs: list[Run], name: str) -> list[Run]:
    """Pick the runs of one candidate, in the order of rounds."""
    return [run for run in runs if run["candidate"] == name]


def measured(runs: list[Run]) -> list[str]:
    """List the candidates that have runs."""
    return [name for name in candidates.ALL if of(runs, name)]


def ratios(runs: list[Run], name: str, key: str = "requests_per_s") -> list[float]:
    """Compare a candidate with the plain collector round by round."""
    plain = {run["round"]: run[key] for run in of(runs, "plain")}
    return [run[key] / plain[run["round"]] for run in of(runs, name) if run["round"] in plain]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay out a table with the first column to the left and numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def speed_row(runs: list[Run], name: str) -> list[str]:
    """Summarise the rate, latency and loss of one candidate."""
    mine = of(runs, name)
    rates = [run["requests_per_s"] * run["events_per_request"] for run in mine]
    return [
        candidates.ALL[name].title,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}",
        f"{max(rates):,.0f}",
        f"{median(mine, 'p50_ms'):.1f}",
        f"{median(mine, 'p99_ms'):.1f}",
        f"{sum(run['accepted'] for run in mine):,}",
        f"{sum(run['missing'] for run in mine):,}",
        f"{max(run['drain_s'] for run in mine):.1f}",
    ]


def speed(runs: list[Run]) -> str:
    """Show rate, latency and loss of all candidates."""
    head = ["", "events/s, median", "min", "max", "p50 ms", "p99 ms", "accepted", "missing", "all in sink after s"]
    return table(head, [speed_row(runs, name) for name in measured(runs)])


def resources(runs: list[Run]) -> str:
    """Show the time that the candidates used, and that others took of the two cores."""
    head = ["", "events per CPU second", "server CPU", "others there", "wrk CPU", "stand-in CPU", "others there"]
    head += ["wrk sleeps / request", "stolen by host", "RSS peak MB"]
    rows = []
    for name in measured(runs):
        mine = of(runs, name)
        keys = ("server_cpu", "server_core_others", "wrk_cpu", "sink_cpu", "load_core_others")
        shares = [f"{median(mine, key):.0%}" for key in keys]
        stolen = max(max(run["server_core_stolen"], run["load_core_stolen"]) for run in mine)
        peak = max(run["rss_peak_mib"] for run in mine) * MIB_IN_MB
        sleeps = f"{median(mine, 'wrk_sleeps_per_request'):.2f}"
        efficiency = f"{median(mine, 'requests_per_cpu_s') * mine[0]['events_per_request']:,.0f}"
        rows.append([candidates.ALL[name].title, efficiency, *shares, sleeps, f"{stolen:.1%}", f"{peak:.0f}"])
    return table(head, rows)


def disturbance(runs: list[Run]) -> str:
    """Warn if other work had more than a little of either core: it can move a ratio in both directions."""
    server = max(run["server_core_others"] for run in runs)
    load = max(run["load_core_others"] for run in runs)
    if max(server, load) <= OTHERS_TOLERATED:
        return ""
    return f"""\
**The machine was not idle.** In its worst turn other work had {server:.0%} of the server's core, and {load:.0%} of the
load's core. The first lowers the rate of that turn. The second can even raise it, see *wrk sleeps* under Method. Judge
by the turns that were left alone, or run it again on an idle machine.
"""


def turns(runs: list[Run]) -> str:
    """Show every turn with its neighbours, so that a reader can leave out those that were disturbed."""
    head = ["turn by turn", "round", "events/s", "events per CPU second", "others, server core", "others, load core"]
    rows = []
    for run in runs:
        events = run["events_per_request"]
        rates = [f"{run[key] * events:,.0f}" for key in ("requests_per_s", "requests_per_cpu_s")]
        others = [f"{run[key]:.0%}" for key in ("server_core_others", "load_core_others")]
        rows.append([candidates.ALL[run["candidate"]].title, str(run["round"]), *rates, *others])
    return table(head, rows)


def verdict(value: float, goal: float) -> str:
    """Return a word on whether a ratio reaches its goal."""
    return "met" if value >= goal else "**not met**"


def comparison(runs: list[Run]) -> str:
    """Show the ratios to the plain collector, each with its goal."""
    rows = []
    for name, goal in GOALS.items():
        values = ratios(runs, name)
        if values:
            middle = statistics.median(values)
            shown = ", ".join(f"{value:.2f}" for value in values)
            by_cpu = f"{statistics.median(ratios(runs, name, 'requests_per_cpu_s')):.2f}"
            row = [f"**{middle:.2f}**", shown, f"{goal:.0f}", verdict(middle, goal), by_cpu]
            rows.append([candidates.ALL[name].title, *row])
    if not rows:
        return ""
    head = ["events/s, times the plain collector", "median", "by round", "goal", "", "events per CPU second, times"]
    return table(head, rows)


def memory(fills: list[Run]) -> str:
    """Show resident memory with a full channel."""
    head = [
        "",
        "events sent",
        "bytes each",
        "in the channel",
        "only in the spool",
        "RSS empty MB",
        "RSS full MB",
        "RSS peak MB",
        "goal MB",
        "",
    ]
    rows = []
    for run in fills:
        empty, full, peak = (run[key] * MIB_IN_MB for key in ("empty_mib", "full_mib", "peak_mib"))
        reached = "met" if peak < MEMORY_GOAL_MB else "**not met**"
        sent = [f"{run[key]:,}" for key in ("events", "event_bytes", "channel_events", "pending_events")]
        sizes = [f"{empty:.0f}", f"{full:.0f}", f"{peak:.0f}", f"< {MEMORY_GOAL_MB}"]
        rows.append([candidates.ALL[run["candidate"]].title, *sent, *sizes, reached])
    return table(head, rows)


def machine(results: Run) -> str:
    """Show the machine and the versions."""
    it, versions = results["machine"], results["versions"]
    cores = f"{it['cores']} cores{' of a virtual machine' if it['virtual'] else ''}"
    rows = [
        ["measured", results["when"]],
        ["processor", f"{it['cpu']}, {cores}"],
        ["memory", f"{it['memory_gib']:.0f} GiB"],
        ["kernel", it["kernel"]],
        ["Python", it["python"]],
        ["load generator", it["wrk"]],
        ["database", f"{it['file_system']} on disk; 4 KiB and `fdatasync`: {it['sync_ms']:.2f} ms (median)"],
        ["load average before", f"{it['load_average']}"],
        ["Forebay", ", ".join(f"{name} {version}" for name, version in versions["forebay"].items())],
        ["plain collector", ", ".join(f"{name} {version}" for name, version in versions["plain"].items())],
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [["", ""], ["---", "---"], *rows])


def section(title: str, note: str, runs: list[Run]) -> list[str]:
    """Write one measurement: its title, the ratios if there are any, the rates, and their cost."""
    if not runs:
        return []
    return [f"## {title}\n", note, disturbance(runs), comparison(runs), speed(runs), resources(runs), turns(runs)]


def render(results: Run) -> str:
    """Write the whole page."""
    settings = results["settings"]
    parts = [HEAD, *section("Single events", SINGLES.format(**settings), results["singles"])]
    parts += section("Batches", BATCHES.format(**settings), results["batches"])
    if results["memory"]:
        parts += ["## Memory with a full channel\n", MEMORY, memory(results["memory"])]
    parts += ["## Machine\n", machine(results), METHOD.format(**settings)]
    parts.append(AGAIN.format(minutes=results["minutes"]))
    return "\n".join(part for part in parts if part)
