"""The documents say what the code does."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from forebay.cli import app
from forebay.settings import Settings, variable_name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTING_ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\|", README, flags=re.MULTILINE))


def shown_default(field: str) -> str:
    default = Settings.model_fields[field].default
    if field == "database_url":
        return f"`sqlite://{default}`"
    if default in (None, ()):
        return ""
    assert default is not PydanticUndefined
    text = str(default).lower() if isinstance(default, bool) else f"{getattr(default, 'value', default)}"
    return f"`{text}`"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_in_the_readme_with_its_default(field: str) -> None:
    assert SETTING_ROWS.get(variable_name(field), "missing").strip() == shown_default(field)


def test_the_readme_names_no_setting_that_there_is_not() -> None:
    known = {variable_name(field) for field in Settings.model_fields} | {"FOREBAY_TEST_OPENSEARCH_URL"}
    named = set(re.findall(r"\bFOREBAY_[A-Z_]+\b", README))
    assert named <= known


def test_the_readme_names_every_command() -> None:
    groups = {group.name for group in app.registered_groups}
    commands = {
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    }
    assert {name for name in groups | commands if f"`forebay {name}" not in README} == set()


def test_the_readme_names_every_command_of_a_group() -> None:
    missing = []
    for group in app.registered_groups:
        assert group.typer_instance is not None
        rows = " ".join(re.findall(rf"^\| `forebay {group.name} .*", README, flags=re.MULTILINE))
        for command in group.typer_instance.registered_commands:
            name = command.name or (command.callback.__name__ if command.callback else "")
            if not re.search(rf"`(forebay {group.name} )?{name}`", rows):
                missing.append(f"{group.name} {name}")
    assert missing == []


def test_the_shipped_env_file_is_a_valid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    names = re.findall(r"^#?\s?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(names) <= {variable_name(field) for field in Settings.model_fields}
    settings = Settings(_env_file=ROOT / ".env.example", JWT_SECRET="a secret that guards nothing at all")
    assert settings.server_port == 3000


def test_every_test_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert named
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.name)
def test_every_link_between_documents_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
