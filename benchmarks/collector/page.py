"""Keeps the measurements and writes docs/otlp-side-by-side.md from them."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.candidates import ROOT
from benchmarks.collector.servers import HERE
from benchmarks.collector.trial import FULL, QUIET_S, RECORDS, REQUESTS_PER_S, Result
from testbed.servers.opensearch_install import VERSION

FOREBAY, OWN, CONTRIB = "forebay", "own", "contrib"
TITLES = {FOREBAY: "Forebay", OWN: "Collector, an exporter of ours", CONTRIB: "Collector, contrib exporter"}
RESULTS = ROOT / "benchmarks" / "results" / "otlp.json"
PAGE = ROOT / "docs" / "otlp-side-by-side.md"
LINE_MAX = 500


def keep(name: str, result: Result, about: dict[str, str]) -> None:
    """Keep the measurements of one server; those of others stay."""
    kept = read() | {name: {**result._asdict(), "fate": result.fate._asdict(), **about}}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def read() -> dict[str, Any]:
    """Return the kept measurements by the name of the server."""
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return kept


def write() -> None:
    """Write the page again."""
    PAGE.write_text(render(read()))


def render(kept: dict[str, Any]) -> str:
    """Return the page."""
    return "\n".join(
        [_head(), _table(kept), LEGEND, _drops(kept), CONTRIB_PART, _better(kept), _configuration(), AGAIN]
    )


def _head() -> str:
    return HEAD.format(
        records=RECORDS,
        requests=REQUESTS_PER_S,
        seconds=FULL.end,
        away=FULL.away,
        killed=FULL.killed,
        back=FULL.back,
        quiet=QUIET_S,
        opensearch=VERSION,
    )


def _table(kept: dict[str, Any]) -> str:
    lines = [HEADINGS, ["---", "---", *["---:"] * 6, "---"], *(_line(name, kept.get(name)) for name in TITLES)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(name: str, result: dict[str, Any] | None) -> list[str]:
    if result is None:
        return [TITLES[name], "not measured", *[""] * 7]
    fate = result["fate"]
    counts = (result["sent"], result["acknowledged"], fate["arrived"], fate["lost"], fate["doubled"])
    answers = ", ".join(f"{status}: {count:,}" for status, count in result["answers"].items())
    return [
        TITLES[name],
        f"{result['version']}, {result['when']}",
        *(f"{count:,}" for count in counts),
        f"{result['drained_s']:.0f} s",
        answers,
    ]


def _drops(kept: dict[str, Any]) -> str:
    """Tell of each server that was measured whether its log says that it has dropped data."""
    parts = ["## Their logs\n"]
    for name in (name for name in TITLES if name in kept):
        count, line = kept[name]["drop_lines"], kept[name]["drop_line"][:LINE_MAX]
        told = f"{count:,} lines of its log tell of dropped data; the first is:\n\n```\n{line}\n```"
        parts.append(f"**{TITLES[name]}**: {told if count else 'no line of its log tells of dropped data.'}\n")
    return "\n".join(parts)


def _better(kept: dict[str, Any]) -> str:
    drained = [kept[name]["drained_s"] for name in (OWN, FOREBAY) if name in kept]
    return BETTER + (SOONER if drained == sorted(drained) and len(drained) > 1 else "")


def _configuration() -> str:
    files = ((HERE / f"{name}.yaml").read_text() for name in ("shared", CONTRIB))
    return CONFIGURATION.format(*files)


HEAD = """\
# Logs over OTLP: Forebay beside the OpenTelemetry Collector

Made by `benchmarks/collector/run.py` from its measurements; edits are overwritten. The raw numbers are in
[`benchmarks/results/otlp.json`](../benchmarks/results/otlp.json).

Both servers go through the same trial, alone, on an empty disk and before an empty OpenSearch {opensearch}. A client
sends numbered log records over OTLP/HTTP in protobuf for {seconds:g} seconds: {requests} requests a second with
{records} records each. OpenSearch is away from second {away:g} to {back:g}: its port refuses connections, and those
that there are get cut. At second {killed:g} the server is killed with `kill -9` and started again with the same
settings on the same disk. The client sends a request again, unchanged, if the answer is 429, 502, 503 or 504, or if
there is none, as OTLP's specification says; so a record without an acknowledgement is not lost but late. When no
document has come for {quiet:g} seconds, every document is read back from OpenSearch and its number compared with those
that were acknowledged. Times depend on what else the machine does meanwhile, and so may the number of doubled records.
"""

HEADINGS = [
    "server",
    "version, measured at",
    "sent",
    "acknowledged",
    "arrived",
    "lost",
    "doubled",
    "drained",
    "answers",
]

LEGEND = """\
- *acknowledged*: the client got a 200 for them.
- *lost*: acknowledged, and not in OpenSearch.
- *doubled*: in OpenSearch more than once.
- *drained*: from the return of OpenSearch until the last document came.

Forebay makes the `_id` of a record of the whole request and its place in it, so a document that is sent again is the
same one. The collector sends documents without an `_id`, since a log record of OTLP has none: whenever OpenSearch has
taken a bulk and the connection is cut before its answer, or a client sends a request again whose answer was lost, the
records are there twice. The table counts how often that was so; it depends on the moment.
"""

CONTRIB_PART = """\
## The Collector's own exporter to OpenSearch

**It was not measured.** The Collector has an exporter to OpenSearch in its contrib distribution. Where this page was
made, that exporter could not be had: the Go module proxy there serves the Collector's core, its receiver and its
`file_storage`, and not this module. So the collector of the table has the Collector's own receiver, queue on disk,
batches and retries, and an exporter of ours (`benchmarks/peers/otel/exporter.go`, about a hundred lines) which leaves
every error of a connection to be retried. Its row shows what the Collector's queue on disk can do, and not what the
contrib exporter makes of it.

Of the contrib exporter there are reports by its users, which we have read and not repeated: with the queue on disk and
`retry_on_failure` without an end, a refused connection is taken for a permanent error, and the Collector then drops the
batch at once and says so in its log ([#38048][], with 0.120; [#45147][], with 0.141, for a name that was not found).
[#49208][] names the cause in the code, and two changes were proposed to mend it ([#49207][], [#49605][]). When we read
them, both were open; a newer version may have one of them. `--contrib` (below) puts your version to the trial.

[#38048]: https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/38048
[#45147]: https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/45147
[#49207]: https://github.com/open-telemetry/opentelemetry-collector-contrib/pull/49207
[#49208]: https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/49208
[#49605]: https://github.com/open-telemetry/opentelemetry-collector-contrib/pull/49605
"""

BETTER = """\
## What the Collector is better at

It takes traces and metrics as well, over gRPC too, and from many other sources; it filters, samples and changes records
on the way; it sends to many kinds of destinations, several at once. Of OTLP Forebay takes log records only, over HTTP
only, and it sends them to OpenSearch only. A Collector can stand before it ([how](reference/formats/otlp.md)).
"""

SOONER = """
In this trial its queue was empty sooner, too (*drained*).
"""

CONFIGURATION = """\
## Settings

Forebay runs with its defaults; only addresses and its key are given. The collector runs with
`benchmarks/collector/shared.yaml` and a file for its exporter: the queue is on disk, each request is synced before its
answer, a full queue makes clients wait, and retries have no end.

```yaml
{}```

For the contrib exporter, besides:

```yaml
{}```
"""

AGAIN = """\
## Run it again

```sh
.venv/bin/python benchmarks/collector/run.py    # Forebay, and a collector that it builds with Go
.venv/bin/python benchmarks/collector/run.py --contrib ./otelcol-contrib    # the contrib distribution as well
```

It takes about four minutes for each server, and needs Linux, Maven (for OpenSearch) and Go. `--contrib` itself has not
been tried, since no executable of the contrib distribution was at hand.
"""
