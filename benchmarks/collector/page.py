"""Keeps the measurements and writes docs/otlp-side-by-side.md from them."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.candidates import ROOT
from benchmarks.collector.servers import HERE
from benchmarks.collector.trial import FULL, QUIET_S, RECORDS, REQUESTS_PER_S, Result
from testbed.servers.opensearch_install import VERSION

FOREBAY, QUEUED, CONTRIB, OWN = "forebay", "queued", "contrib", "own"
TITLES = {
    FOREBAY: "Forebay",
    QUEUED: "Collector, its own exporter with its queue on disk",
    CONTRIB: "Collector, its own exporter without a queue",
    OWN: "Collector, an exporter of ours with its queue on disk",
}
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
        [_head(), _table(kept), _legend(), _drops(kept), CONTRIB_PART, _better(kept), _configuration(), AGAIN]
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
    lines = [HEADINGS, ["---", "---", *["---:"] * 7, "---"], *(_line(name, kept.get(name)) for name in TITLES)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(name: str, result: dict[str, Any] | None) -> list[str]:
    if result is None:
        return [TITLES[name], "not measured", *[""] * 8]
    fate = result["fate"]
    told = (result["sent"], result["acknowledged"], result["refused"])
    counts = (*told, fate["arrived"], fate["lost"], fate["doubled"])
    answers = ", ".join(f"{status}: {count:,}" for status, count in result["answers"].items())
    return [
        TITLES[name],
        f"{result['version']}, {result['when']}",
        *(f"{count:,}" for count in counts),
        f"{result['drained_s']:.0f} s",
        answers,
    ]


def _legend() -> str:
    return LEGEND.format(sending=FULL.end - FULL.back)


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
    files = ((HERE / f"{name}.yaml").read_text() for name in ("shared", QUEUED))
    return CONFIGURATION.format(*files)


HEAD = """\
# Logs over OTLP: Forebay beside the OpenTelemetry Collector

Made by `benchmarks/collector/run.py` from its measurements; edits are overwritten. The raw numbers are in
[`benchmarks/results/otlp.json`](../benchmarks/results/otlp.json).

All servers go through the same trial, alone, on an empty disk and before an empty OpenSearch {opensearch}. A client
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
    "refused",
    "arrived",
    "lost",
    "doubled",
    "drained",
    "answers",
]

LEGEND = """\
- *acknowledged*: the client got a 200 for them.
- *refused*: the client got an answer that tells it not to send them again. It has them no more, so they are lost, too,
  though not in silence.
- *lost*: acknowledged, and not in OpenSearch.
- *doubled*: in OpenSearch more than once.
- *drained*: from the return of OpenSearch until the last document came. The client goes on sending for {sending:g}
  seconds of that. Of Forebay, the last bulk waits up to ten seconds more to be filled (`FOREBAY_BULK_INTERVAL_S`).

Forebay makes the `_id` of a record of the whole request and its place in it, so a document that is sent again is the
same one. The collector sends documents without an `_id`, since a log record of OTLP has none: whenever OpenSearch has
taken a bulk and the connection is cut before its answer, or a client sends a request again whose answer was lost, the
records are there twice. The table counts how often that was so; it depends on the moment.
"""

CONTRIB_PART = """\
## The Collector's own exporter to OpenSearch

The exporter is in the Collector's contrib distribution; `benchmarks/peers/contrib` builds a collector with it, with
nothing of ours. Its version is the newest that the Go module proxy had where this page was made.

The cause is one rule of the exporter: whatever goes wrong with a bulk as a whole, a refused connection too, is a
*permanent* error. After a permanent error `retry_on_failure` tries nothing again, however it is set. Without a queue
the client is answered with 500, which OTLP forbids to send again. With a queue the client has its 200 already, and the
Collector drops the batch, from its disk too. With an exporter that leaves such errors to be retried (the row "an
exporter of ours": `benchmarks/peers/otel/exporter.go`, about a hundred lines) the Collector's queue keeps everything.

Users report the same of 0.120, with the queue on disk and retries without an end ([#38048][]), and of 0.141, for a name
that was not found ([#45147][]). [#49208][] names the same rule in the code of June 2026, and two changes were proposed
to mend it ([#49207][], [#49605][]). When we read them, both were open; a newer version may have one of them.

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
In this trial its last document came sooner, too (*drained*).
"""

CONFIGURATION = """\
## Settings

Forebay runs with its defaults; only addresses and its key are given. Each collector runs with
`benchmarks/collector/shared.yaml` and a file for its exporter: each write to the disk is synced, retries have no end,
and the log leaves out no line (by itself it would write ten of a kind in ten seconds, and then each hundredth). For the
contrib exporter with its queue, this is all of it:

```yaml
{}```

```yaml
{}```

`benchmarks/collector/contrib.yaml` is the same without the queue. `benchmarks/collector/own.yaml` has the queue of a
newer version, with larger bulks.
"""

AGAIN = """\
## Run it again

```sh
.venv/bin/python benchmarks/collector/run.py
```

It builds the collectors itself, takes about four minutes for each server, and needs Linux, Maven (for OpenSearch) and
Go.
"""
