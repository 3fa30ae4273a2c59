"""The documents agree with the code."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs.render import PART, render, render_help
from forebay.admin import metrics
from forebay.admin.snapshot import ServerSnapshot
from forebay.denials.entries import Kind
from forebay.model import Verdict
from forebay.settings import Settings, variable_name
from forebay.telemetry.counters import Overload

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "forebay"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_of(page: Path) -> list[str]:
    """Return everything that a page writes as code: the lines of its blocks, and the pieces within its text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```\w*\n.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    pieces = (" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", text))
    return [*pieces, *(line for block in blocks for line in block.replace("\\\n", " ").splitlines())]


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", ARCHITECTURE, flags=re.MULTILINE | re.DOTALL)
    assert match, f"architecture.md has no section {title!r}"
    return match[1]


@functools.cache
def help_of(*command: str) -> str:
    return render_help(" ".join(("forebay", *command)))


def subcommands(help_text: str) -> list[str]:
    """Return the commands that the help of a group lists."""
    _, _, listed = help_text.partition("\nCommands:\n")
    return re.findall(r"^  (\w+) ", listed, flags=re.MULTILINE)


# Pages made from the code


@pytest.mark.parametrize("page", REFERENCE, ids=lambda path: path.name)
def test_no_page_of_the_reference_is_stale(page: Path) -> None:
    assert read(page) == render(read(page)), "run make docs"


def test_the_reference_has_every_setting_once() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", read(ROOT / "docs/reference/settings.md"), flags=re.MULTILINE)
    assert rows == [variable_name(field) for field in Settings.model_fields]


def test_the_reference_has_the_help_of_every_command() -> None:
    wanted = set()
    for name in subcommands(help_of()):
        wanted |= {f"forebay {name} {part}" for part in subcommands(help_of(name))} or {f"forebay {name}"}
    assert wanted
    shown = {match["name"] for match in PART.finditer(read(ROOT / "docs/reference/commands.md"))}
    assert wanted - shown == set()


def test_the_reference_names_every_value_of_a_label() -> None:
    page = read(ROOT / "docs/reference/metrics.md")
    values = [member.value for kind in (Verdict, Overload, Kind) for member in kind]
    assert [value for value in values if f"`{value}`" not in page] == []


# Names in pages


@every_page
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {variable_name(field) for field in Settings.model_fields}
    named = set(re.findall(r"\bFOREBAY_[A-Z_]*[A-Z]\b", read(page)))
    assert {name for name in named - known if not name.startswith("FOREBAY_TEST_")} == set()


@every_page
def test_every_metric_that_a_page_names_exists(page: Path) -> None:
    families = text_string_to_metric_families(metrics.render(ServerSnapshot(1, {})).decode())
    known = {f"{family.name}{'_total' * (family.type == 'counter')}" for family in families}
    named = {name for code in code_of(page) for name in re.findall(r"\bforebay_[a-z_]+", code)}
    assert named - known == set()


@every_page
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    for code in code_of(page):
        match = re.match(r"(?:\$ )?(?:\.venv/bin/)?forebay ([a-z].*)", code)
        if match is None:
            continue
        first, *rest = match[1].split()
        assert first in subcommands(help_of()), code
        parts = subcommands(help_of(first))
        # A group may do something by itself: `forebay token --sub me` has a command's options and none of its commands.
        command = [name for name in rest[:1] if parts and not name.startswith("-")]
        assert set(command) <= set(parts), code
        help_text = help_of(first, *command)
        assert [option for option in re.findall(r" (--[a-z][a-z-]*)", match[1]) if option not in help_text] == [], code


@every_page
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), flags=re.MULTILINE))
    named = {match[1] for code in code_of(page) if (match := re.match(r"make ([a-z-]+)", code))}
    assert named - targets == set()


@every_page
def test_every_log_line_that_a_page_names_is_written_somewhere(page: Path) -> None:
    named = set(re.findall(r"\blogs? (?:says )?`([a-z_]+)`", read(page)))
    source = "".join(read(path) for path in SOURCE.rglob("*.py"))
    assert {name for name in named if f'"{name}"' not in source} == set()


@every_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    pattern = r"(?:[\w.-]+/)*[\w.-]+\.(?:py|sql|sh|yaml|toml|lock|lua|md)|(?:[\w.-]+/)+"
    named = {code for code in code_of(page) if re.fullmatch(pattern, code) and not code.startswith("NAME")}
    places = (ROOT, SOURCE, page.parent)
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


@every_page
def test_every_link_between_documents_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)]+)\)", read(page))
    assert [link for link in links if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in anchors_of(target))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# How long things may be


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= 130


def test_the_events_way_is_read_in_an_afternoon() -> None:
    files = re.findall(r"^\d+\. `([\w/]+\.(?:py|sql))`: \S", section("The event's way"), flags=re.MULTILINE)
    assert len(files) == len(set(files))
    assert 10 <= len(files) <= 25
    assert {name for name in files if not (SOURCE / name).is_file()} == set()
    assert sum(len(read(SOURCE / name).splitlines()) for name in files) <= 4_500


def test_the_glossary_has_few_words_each_once() -> None:
    words = re.findall(r"^\| ([a-z ]+) \| [^|]+ \|$", section("Words"), flags=re.MULTILINE)[1:]
    assert words
    assert len(words) == len(set(words))
    assert len(words) <= 30


def test_every_invariant_names_tests_that_hold_it() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", section("Invariants"), flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert [number for number, tests in rows if not re.search(r"`tests/[\w/]+\.py`", tests)] == []


def test_the_shipped_env_file_is_a_valid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    names = re.findall(r"^#?\s?([A-Z_]+)=", read(ROOT / ".env.example"), flags=re.MULTILINE)
    assert set(names) <= {variable_name(field) for field in Settings.model_fields}
    settings = Settings(_env_file=ROOT / ".env.example", JWT_SECRET="a secret that guards nothing at all")
    assert settings.server_port == 3000
