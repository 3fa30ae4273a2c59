"""Writes docs/reliability.md from the results that were kept."""

from __future__ import annotations

from typing import Any

from chaos.matrix import ROWS
from chaos.results import FAULTS, ROOT, SOAK, read
from chaos.rows import Row
from chaos.scale import FULL

PAGE = ROOT / "docs" / "reliability.md"
Kept = dict[str, Any]

HEAD = """\
# Reliability

Made by `make chaos` and `make soak` from their measurements; edits are overwritten. The raw numbers are in
[`chaos/results`](../chaos/results). A 200 means that the event will be in OpenSearch exactly once, or among the dead
letters with the reason. That has been tried against these faults.

## Faults

Each row is a run of its own, with a real `forebay serve` on an empty spool and a real OpenSearch. Faults of the
network, and answers that OpenSearch does not give by itself, come from a proxy between the two
(`testbed/servers/faulty_proxy.py`). Clients send singles and batches of up to 50 events, {rate:,.0f} events a second,
two thirds of the requests with `log_id`s. A request that gets no answer or a 503 they send again unchanged. They begin
before the fault and stop at its end.
"""

COLUMNS = """\
- *ack*: the acknowledgement that the clients asked for.
- *accepted*: different events that were answered with 200.
- *answers*: requests by the status of their answer, requests without an answer, events that were sent again.
- *lost*: answered with 200, and neither in OpenSearch (in the right index, with equal fields) nor among the dead
  letters with a reason.
- *duplicated*: `log_id`s that exist more than once, over all indices and the dead letters. If a client sends an event
  *without* a `log_id`, gets no answer and sends it again, it is a new event to the server; the notes below the table
  count the events that were stored so.
- *recovered*: from the end of the fault (the connection is open again, the process runs again) until everything that
  was accepted is in OpenSearch.
"""

SETTINGS = """\
The server runs with its defaults but for {settings}, and the settings that a row names. With the defaults, back-offs
and intervals are longer, and so is the time to recover.
"""

PROCESSES_HEAD = [
    *("process", "how it ended", "seconds", "samples", "resident MB, first third", "last third", "slope MB/h"),
    *("open files, first third", "last third", "most"),
]
ROW_HEAD = ["fault", "ack", "accepted", "answers", "lost", "duplicated", "recovered"]


def write() -> None:
    """Write the document again."""
    PAGE.write_text(render(read(FAULTS), read(SOAK)))


def render(faults: Kept, soak: Kept) -> str:
    """Return the document."""
    parts = [HEAD.format(rate=FULL.rate)]
    if faults:
        parts += [_table(faults["rows"]), COLUMNS, _settings(), _prose(faults["rows"]), _where(faults["rows"])]
    parts.append(_soak(soak))
    parts.append(AGAIN)
    return "\n".join(parts)


def _table(kept: Kept) -> str:
    lines = [ROW_HEAD, ["---", "---", "---:", "---", "---:", "---:", "---:"]]
    for row in ROWS:
        lines += [_line(row, kept[f"{row.name} {ack}"]) for ack in row.acks if f"{row.name} {ack}" in kept]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(row: Row, result: Kept) -> list[str]:
    recovery = "not in time" if result["recovery_s"] is None else f"{result['recovery_s']:.1f} s"
    failed = " **failed**" if result["problem"] else ""
    return [
        f"{row.title} (`{row.name}`){failed}",
        result["ack"],
        f"{result['events']:,}",
        _seen(result),
        f"{result['lost']:,}",
        f"{result['duplicated']:,}",
        recovery,
    ]


def _seen(result: Kept) -> str:
    seen = [f"{status}: {count:,}" for status, count in result["answers"].items()]
    if result["connection_errors"]:
        seen.append(f"no answer: {result['connection_errors']:,}")
    if result["resent"]:
        seen.append(f"events sent again: {result['resent']:,}")
    return ", ".join(seen)


def _settings() -> str:
    return SETTINGS.format(settings=", ".join(f"`{name}={value}`" for name, value in FULL.settings.items()))


def _prose(kept: Kept) -> str:
    parts = []
    for row in ROWS:
        results = [kept[key] for ack in row.acks if (key := f"{row.name} {ack}") in kept]
        if not results:
            continue
        notes = [line for result in results for line in _notes(result, alone=len(row.acks) == 1)]
        if row.prose or notes:
            parts.append(f"**{row.title}** (`{row.name}`). {row.prose}".rstrip() + "\n")
            parts.append("".join(f"- {note}\n" for note in notes) if notes else "")
    return "\n".join(filter(None, parts))


def _notes(result: Kept, *, alone: bool) -> list[str]:
    notes = list(result["notes"])
    if result["unanswered_twice"]:
        notes.append(f"{result['unanswered_twice']:,} events without `log_id` were stored without the client's knowing")
    if result["dead"]:
        notes.append(f"{result['dead']:,} of {result['events']:,} became dead letters")
    if result["problem"]:
        notes.append(f"**failed**: {result['problem']}")
    return [note if alone else f"`ack={result['ack']}`: {note}" for note in notes]


def _where(kept: Kept) -> str:
    times = sorted(result["when"] for result in kept.values())
    summary = {
        "measured": times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}",
        "events": f"{sum(result['events'] for result in kept.values()):,} accepted, over all rows",
    }
    return _describe(summary | {name: _on(name, kept) for name in next(iter(kept.values()))["on"]})


def _on(name: str, kept: Kept) -> str:
    """Return the versions and machine that rows were measured on; with the rows' names if there were several."""
    rows: dict[str, list[str]] = {}
    for row, result in kept.items():
        rows.setdefault(result["on"][name], []).append(row)
    if len(rows) == 1:
        return next(iter(rows))
    first, *others = sorted(rows.items(), key=lambda item: -len(item[1]))
    return "; ".join([first[0], *(f"{', '.join(f'`{row}`' for row in names)}: {value}" for value, names in others)])


def _describe(header: Kept) -> str:
    lines = ["|  |  |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in header.items())]
    return "\n".join(lines) + "\n"


SOAK_HEAD = """\
## Soak

`make soak`: a mixed load for a long time, singles and batches, `ack=disk` and `ack=memory`, some bad events among them,
and one fault after another, chosen at random. Before a `kill -9`, events that `ack=memory` has answered are let
through, since they would go with the process.
"""


def _soak(soak: Kept) -> str:
    if not soak:
        return SOAK_HEAD + "\nNot measured yet.\n"
    lines = [
        PROCESSES_HEAD,
        ["---:", "---", *["---:"] * 8],
        *([str(value) for value in run] for run in soak["lives"]),
    ]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n".join([SOAK_HEAD, _describe(soak["summary"]), soak["verdict"] + "\n", table, _describe(soak["header"])])


AGAIN = """\
## Run it again

```sh
make chaos        # ends with 1 if a row has failed
make soak         # half an hour; `.venv/bin/python chaos/soak.py --minutes 5` is a short one
```

`.venv/bin/python chaos/run.py --only kill-9 month` runs single rows and puts them into the table above; `--short` runs
the short form that is a part of `make test`. They need Linux, Maven (for OpenSearch), `faketime`, and root for the row
with a small disk.
"""
