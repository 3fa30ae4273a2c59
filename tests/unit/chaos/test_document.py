"""The document shows the measurements, and nothing else."""

from dataclasses import asdict

from chaos.document import PAGE, render
from chaos.matrix import ROWS
from chaos.results import FAULTS, SOAK, Result, read


def kept(*results: Result, forebay: str = "0") -> dict[str, dict[str, object]]:
    return {
        "rows": {f"{result.row} {result.ack}": {**asdict(result), "on": {"forebay": forebay}} for result in results}
    }


def test_the_document_is_the_one_that_the_kept_numbers_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(read(FAULTS), read(SOAK))


def test_a_row_shows_the_answers_to_clients_and_the_fate_of_the_events() -> None:
    result = Result(
        "refused", "disk", events=1234, answers={"200": 80, "503": 7}, connection_errors=3, resent=55, recovery_s=1.25
    )
    line = next(line for line in render(kept(result), {}).splitlines() if "(`refused`)" in line)
    assert line == (
        "| connections refused (`refused`) | disk | 1,234 | 200: 80, 503: 7, no answer: 3, events sent again: 55 "
        "| 0 | 0 | 1.2 s |"
    )


def test_a_row_that_failed_says_so_and_why() -> None:
    page = render(kept(Result("refused", "disk", problem="lost: 3 (a, b, c)", lost=3)), {})
    assert "(`refused`) **failed** | disk | 0 |  | 3 | 0 | not in time |" in page
    assert "`ack=disk`: **failed**: lost: 3 (a, b, c)" in page


def test_a_row_that_was_not_measured_is_not_spoken_of() -> None:
    page = render(kept(Result("refused", "disk")), {})
    assert "(`refused`)" in page
    assert "(`kill-9`)" not in page


def test_the_versions_of_all_rows_are_told_once_and_exceptions_by_name() -> None:
    rows = kept(Result("refused", "disk"), Result("refused", "memory"), forebay="2")["rows"]
    assert "| forebay | 2 |" in render({"rows": rows}, {})
    rows |= kept(Result("kill-9", "disk"), forebay="3")["rows"]
    assert "| forebay | 2; `kill-9 disk`: 3 |" in render({"rows": rows}, {})


def test_rows_have_names_of_their_own_and_only_acknowledgements_that_there_are() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(set(row.short_acks) <= set(row.acks) <= {"disk", "memory"} for row in ROWS)
