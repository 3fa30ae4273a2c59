"""Every setting is described and bounded, each wrong one is named on one line, and secrets stay secret."""

from __future__ import annotations

import json
import math
import re
import stat
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import get_args

import annotated_types
import pytest

from forebay import settings as settings_module
from forebay.errors import SettingsError
from forebay.model import Ack
from forebay.provider_entry import ScopeName
from forebay.secret import resolve_secret
from forebay.setting_values import LogFormat, SecretAlgorithm
from forebay.settings import Settings, load_settings, unknown_variables, variable_name
from forebay.tokens.claims import Scope

SECRET = "a secret that guards nothing at all"
PUBLIC_KEYS = {
    "PEM": (
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n"
    ),
    "PEM within other text": "key: -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "SSH": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1wMWbh me@here",
}
NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]
TIMES = [name for name, field in Settings.model_fields.items() if field.annotation is float]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without `.env`, and an environment in which nothing is set."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)
    for name, _ in unknown_variables():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complain(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the complaint about wrong settings."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    return str(raised.value)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_has_a_description(field: str) -> None:
    assert Settings.model_fields[field].description


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_has_a_default_and_a_variable(field: str) -> None:
    assert not Settings.model_fields[field].is_required()
    assert re.fullmatch(r"[A-Z][A-Z_]+", variable_name(field))


@pytest.mark.parametrize("field", NUMBERS)
def test_every_number_has_a_lower_bound(field: str) -> None:
    bounds = Settings.model_fields[field].metadata
    assert any(isinstance(bound, (annotated_types.Ge, annotated_types.Gt)) for bound in bounds)


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "nan", "a lot", "1,5"])
def test_no_number_is_negative_or_something_else(field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, **{variable_name(field): value})
    assert said.startswith(f"{variable_name(field)}: '{value}' is not allowed; expected: ")


@pytest.mark.parametrize("field", TIMES)
@pytest.mark.parametrize("value", ["inf", "1e300", "86401", "0"])
def test_every_time_is_more_than_0_and_at_most_a_day(field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable_name(field) in complain(monkeypatch, **{variable_name(field): value})


def test_the_defaults_are_valid_and_finite() -> None:
    settings = load_settings()
    assert all(math.isfinite(getattr(settings, field)) for field in NUMBERS)
    assert (settings.open_search_dns, settings.ack, settings.log_format) == ((), Ack.DISK, LogFormat.AUTO)


def test_a_variable_counts_more_than_the_env_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("SERVER_PORT=4000\nFOREBAY_ACK=memory\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("SERVER_PORT", "5000")
    settings = load_settings()
    assert (settings.server_port, settings.ack) == (5000, Ack.MEMORY)


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("password", ["p${x}q", "p${HOME}q", "p$HOME", "p${x:-y}", "${", "p${SERVER_PORT}"])
def test_the_env_file_is_read_as_it_is_written(
    folder: Path, quote: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "hunter2")
    (folder / ".env").write_text(
        f"SERVER_PORT=4000\nOPEN_SEARCH_DNS={quote}http://u:{password}@one:9200{quote}\nJWT_SECRET={quote}{password}{quote}\n"
    )
    settings = load_settings()
    assert settings.server_port == 4000
    assert settings.open_search_dns[0].password == password
    assert resolve_secret(settings) == password


def test_an_empty_variable_in_the_env_file_counts_as_not_set(folder: Path) -> None:
    (folder / ".env").write_text("".join(f"{variable_name(field)}=\n" for field in Settings.model_fields))
    assert load_settings() == Settings(_env_file=None)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(variable_name(field), "")
    assert load_settings() == Settings()


def test_every_wrong_setting_is_named_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, SERVER_PORT="70000", FOREBAY_ACK="tape", FOREBAY_REQUIRE_LOG_ID="maybe")
    assert said.splitlines() == [
        "SERVER_PORT: '70000' is not allowed; expected: less than or equal to 65535",
        "FOREBAY_ACK: 'tape' is not allowed; expected: 'disk' or 'memory'",
        "FOREBAY_REQUIRE_LOG_ID: 'maybe' is not allowed; expected: a valid boolean, unable to interpret input",
    ]


def test_settings_that_contradict_each_other_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_RETRY_DELAY_S_MIN="40")
    assert said == "FOREBAY_RETRY_DELAY_S_MIN: must not exceed FOREBAY_RETRY_DELAY_S_MAX"


def test_all_requests_together_may_not_have_less_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_IN_HAND_BYTES_MAX="1000000")
    assert said == "FOREBAY_IN_HAND_BYTES_MAX: must not be less than FOREBAY_BODY_BYTES_MAX"


@pytest.mark.parametrize(
    "value",
    ["2024", "2024-1", "2024-13", "2024-00", "2024-01-01", "1969-12", "0000-01", "２０２４-01", "2024\n-01", "May"],
)
def test_the_oldest_month_is_one_that_events_can_have(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_OLDEST_MONTH=value)
    assert said == (
        f"FOREBAY_OLDEST_MONTH: {value!r} is not allowed; expected: a month from 1970-01 on, such as 2024-01"
    )


def test_the_oldest_month_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    this_month = f"{datetime.now(UTC):%Y-%m}"
    for value in ("1970-01", this_month):
        monkeypatch.setenv("FOREBAY_OLDEST_MONTH", value)
        assert f"{load_settings().oldest_month_start:%Y-%m-%d %H:%M %Z}" == f"{value}-01 00:00 UTC"

    assert complain(monkeypatch, FOREBAY_OLDEST_MONTH="9999-12") == "FOREBAY_OLDEST_MONTH: must not lie in the future"


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://shop.example", ("https://shop.example",)),
        (" HTTPS://Shop.Example:443/ , http://localhost:8080,", ("https://shop.example", "http://localhost:8080")),
        ("http://[::1]:80", ("http://[::1]",)),
        ("https://bücher.example", ("https://xn--bcher-kva.example",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("*", ("*",)),
    ],
)
def test_origins_are_written_as_browsers_do(
    value: str, origins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_CORS_ORIGINS", value)
    assert load_settings().cors_origins == origins


@pytest.mark.parametrize(
    "value",
    [",", "shop.example", "https://", "https://a/b", "https://a?b", "https://u:p@a", "https://a:x", "https://*.a/"],
)
def test_what_no_browser_sends_is_no_origin(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complain(monkeypatch, FOREBAY_CORS_ORIGINS=value).startswith("FOREBAY_CORS_ORIGINS: ")


@pytest.mark.parametrize("value", ["geo", "geo-and-agent_2.1", "7", "x" * 512])
def test_a_pipeline_has_a_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_OPEN_SEARCH_PIPELINE", value)
    assert load_settings().open_search_pipeline == value


@pytest.mark.parametrize(
    "value", ["_none", "_all", "-a", ".a", "a b", "a&b=c", "a/b", "a%20", "ä", "a\nb", "*", "x" * 513]
)
def test_what_may_be_no_name_is_no_pipeline(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_OPEN_SEARCH_PIPELINE=value)
    assert said.startswith("FOREBAY_OPEN_SEARCH_PIPELINE: ")
    assert "the name of an ingest pipeline" in said


def test_extra_paths_are_no_addresses_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_PATHS_EXTRA", "/c, /a/b-1")
    assert load_settings().paths_extra == ("/c", "/a/b-1")
    for value in (
        "c",
        "/",
        "/c/",
        "/c?x",
        "/c d",
        "/events",
        "/events/x",
        "/ping",
        "/metrics",
        "/%63",
        "/health/live",
        "/../x",
        "/a/.",
    ):
        assert complain(monkeypatch, FOREBAY_PATHS_EXTRA=value).startswith("FOREBAY_PATHS_EXTRA: ")


def test_a_clock_that_is_far_behind_keeps_no_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Behind:
            return cls(1970, 1, 1, tzinfo=tz)

    monkeypatch.setattr(settings_module, "datetime", Behind)
    assert load_settings().oldest_month == "2024-01"


def test_an_env_file_that_is_no_text_is_a_wrong_setting(folder: Path) -> None:
    (folder / ".env").write_bytes(b"SERVER_PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"^\.env: not UTF-8"):
        load_settings()


def test_an_env_file_that_cannot_be_read_is_a_wrong_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("SERVER_PORT=1\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SettingsError, match=r"^\.env: cannot be read: Permission denied$"):
        load_settings()


@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t "])
def test_blanks_around_a_setting_are_ignored(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "OPEN_SEARCH_DNS": "https://one:9200",
        "SERVER_ENVIRONMENT": "production",
        "JWT_SECRET": SECRET,
        "DATABASE_URL": "sqlite://spool.db",
        "FOREBAY_OPEN_SEARCH_API_KEY": "hunter2",
        "FOREBAY_OPEN_SEARCH_CA_FILE": "ca.pem",
        "FOREBAY_HOST": "127.0.0.1",
        "FOREBAY_ACK": "memory",
        "FOREBAY_OLDEST_MONTH": "2024-02",
        "FOREBAY_BULK_WORKERS": "3",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    wanted = load_settings()
    for name, value in values.items():
        if name != "JWT_SECRET":
            monkeypatch.setenv(name, f"{blank}{value}{blank}")
    found = load_settings()

    assert {**found.model_dump(), "open_search_dns": ""} == {**wanted.model_dump(), "open_search_dns": ""}
    assert [host.url for host in found.open_search_dns] == ["https://one:9200"]


def test_a_bearer_token_from_a_file_loses_its_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", "https://one:9200")
    monkeypatch.setenv("FOREBAY_OPEN_SEARCH_BEARER", "hunter2\n")
    bearer = load_settings().open_search_bearer
    assert bearer is not None
    assert bearer.get_secret_value() == "hunter2"


def test_blanks_around_a_setting_in_the_env_file_are_ignored(folder: Path) -> None:
    (folder / ".env").write_text('DATABASE_URL="sqlite://spool.db\n"\n')
    assert load_settings().database_url == Path("spool.db")


@pytest.mark.parametrize("environment", ["Prod", "a b", "_a", "a/b", "a,b", "*", "a" * 65, "pr\nod", "日本"])
def test_an_environment_must_fit_into_the_name_of_an_index(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, SERVER_ENVIRONMENT=environment, JWT_SECRET=SECRET)
    assert said.startswith("SERVER_ENVIRONMENT: ")
    assert len(said.splitlines()) == 1


# How much, and from where


@pytest.mark.parametrize("kind", ["TOKEN", "DEVICE", "ADDRESS"])
def test_a_rate_and_a_quota_are_within_their_bounds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rate, quota = f"FOREBAY_{kind}_RATE_PER_S", f"FOREBAY_{kind}_QUOTA_PER_DAY"
    for value in ("0", "-1", "inf", "nan", "1000001", "many"):
        assert complain(monkeypatch, **{rate: value}).startswith(f"{rate}: '{value}' is not allowed; expected: ")
    monkeypatch.setenv(rate, "0.5")
    for value in ("0", "-1", "0.5", "inf", "many"):
        assert complain(monkeypatch, **{quota: value}).startswith(f"{quota}: '{value}' is not allowed; expected: ")
    monkeypatch.setenv(quota, "1")
    found = load_settings().model_dump()
    assert (found[f"{kind.lower()}_rate_per_s"], found[f"{kind.lower()}_quota_per_day"]) == (0.5, 1)


def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1,::1,fd00::/8,::ffff:192.0.2.0/120,")
    found = [str(network) for network in load_settings().trusted_proxies]
    assert found == ["10.0.0.0/8", "127.0.0.1/32", "::1/128", "fd00::/8", "192.0.2.0/24"]


@pytest.mark.parametrize(
    "value",
    ["proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "10.0.0.0/8 ::1", "[::1]", "0.0.0.0/0", "::/0", "::ffff:0:0/96"],
)
def test_proxies_that_are_none_or_everybody_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_TRUSTED_PROXIES=f"127.0.0.1,{value}")
    assert said == (
        f"FOREBAY_TRUSTED_PROXIES: '127.0.0.1,{value}' is not allowed; expected: "
        "addresses and networks with commas, such as 10.0.0.0/8,::1, and not all addresses"
    )


def test_the_proxy_protocol_is_read_from_trusted_proxies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_PROXY_PROTOCOL="true")
    assert said == "FOREBAY_PROXY_PROTOCOL: needs FOREBAY_TRUSTED_PROXIES"
    monkeypatch.setenv("FOREBAY_TRUSTED_PROXIES", "127.0.0.1")
    assert load_settings().proxy_protocol


# The spool


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite://sqlite3.db", "sqlite3.db"),
        ("sqlite:sqlite3.db", "sqlite3.db"),
        ("sqlite://data/spool.db", "data/spool.db"),
        ("sqlite:///var/lib/forebay/spool.db", "/var/lib/forebay/spool.db"),
        ("sqlite:////var/lib/spool.db", "/var/lib/spool.db"),
        ("sqlite://sqlite3.db?mode=rwc", "sqlite3.db"),
        ("sqlite://sqlite3.db?mode=rw", "sqlite3.db"),
        ("sqlite://with space.db", "with space.db"),
    ],
)
def test_the_spool_is_a_file(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert load_settings().database_url == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite3.db",
        "sqlite:",
        "sqlite:/",
        "sqlite://",
        "sqlite:///",
        "sqlite://.",
        "sqlite://..",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite://file.db?mode=memory",
        "sqlite://file.db?mode=ro",
        "sqlite://file.db?cache=shared",
        "postgres://localhost/events",
    ],
)
def test_a_database_that_keeps_no_events_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, DATABASE_URL=url)
    assert said.startswith("DATABASE_URL: ")
    assert said.endswith("expected: a file such as sqlite://sqlite3.db or sqlite:///var/lib/forebay/spool.db")


def test_the_files_of_the_server_lie_beside_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///var/lib/spool.db")
    settings = load_settings()
    assert settings.store_path == Path("/var/lib/spool-events.db")
    assert settings.secret_path == Path("/var/lib/spool.db.secret")


# OpenSearch


def test_opensearch_is_one_address_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", "https://u%40x:p%2F%2C@one:9200/base/, http://[::1]:9200,http://three")
    first, second, third = load_settings().open_search_dns
    assert (first.url, first.username, first.password) == ("https://one:9200/base", "u@x", "p/,")
    assert (second.url, second.username, second.password) == ("http://[::1]:9200", None, None)
    assert third.url == "http://three"


@pytest.mark.parametrize(
    "value",
    [
        "localhost:9200",
        "ftp://localhost",
        "http://",
        "http://:9200",
        "http://localhost:port",
        "http://localhost:99999",
        "http://localhost:0",
        "http://user:hunter\t2@localhost:9200",
        "http://user:hunter\n2@localhost:9200",
        "http://localhost?x=1",
        "http://localhost#x",
        "http://[::1",
        ",",
        " ",
        "http://good:9200,bad",
        "http://user:hunter/2@localhost:9200",
    ],
)
def test_a_text_that_is_no_address_of_opensearch_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, OPEN_SEARCH_DNS=value)
    assert said.startswith("OPEN_SEARCH_DNS: the value is not allowed; expected: an address such as ")


@pytest.mark.parametrize(
    "host",
    [
        "a..b",
        ".a",
        "a..",
        ".",
        "a" * 64,
        "ü" * 63,
        f"good.{'a' * 64}.example",
        ".".join(["a"] * 128),
        "é..b",
        "a b",
        "a\tb",
        "a%20b",
        "a<b",
        "1.2.3",
        "1.2.3.999",
        "9200",
        "[::g]",
        "[1::2::3]",
    ],
)
def test_a_host_name_that_can_never_be_found_is_refused_on_one_line(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, OPEN_SEARCH_DNS=f"http://good:9200,http://admin:hunter2@{host}:9200")
    assert said.startswith("OPEN_SEARCH_DNS: the value is not allowed; expected: a")
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.b.",
        "a" * 63,
        ".".join(["a"] * 127),
        "under_score",
        "Large.Example",
        "-a-",
        "münchen.example",
        "日本",
        "xn--wgv71a",
        "127.0.0.1",
        "3com.example",
        "[::1]",
        "[fe80::1%25eth0]",
    ],
)
def test_a_host_name_that_may_be_found_is_taken(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_SEARCH_DNS", f"http://{host}:9200")
    assert load_settings().open_search_dns[0].url == f"http://{host.lower()}:9200"


URL = "https://one:9200"
WITH_USER = "https://admin:hunter2@one:9200"
PAIR = {"FOREBAY_OPEN_SEARCH_CERT_FILE": "c.pem", "FOREBAY_OPEN_SEARCH_KEY_FILE": "k.pem"}


@pytest.mark.parametrize(
    "variables",
    [
        {"OPEN_SEARCH_DNS": WITH_USER, **PAIR},
        {"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_API_KEY": "a", "FOREBAY_OPEN_SEARCH_CA_FILE": "ca.pem"},
        {"OPEN_SEARCH_DNS": "http://one", "FOREBAY_OPEN_SEARCH_BEARER": "a"},
        {
            "OPEN_SEARCH_DNS": URL,
            "FOREBAY_OPEN_SEARCH_AWS_REGION": "eu-west-1",
            "FOREBAY_OPEN_SEARCH_AWS_SERVICE": "aoss",
        },
    ],
)
def test_credentials_that_go_together_are_taken(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    load_settings()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OPEN_SEARCH_DNS": WITH_USER, "FOREBAY_OPEN_SEARCH_API_KEY": "a"}, "OPEN_SEARCH_DNS"),
        ({"OPEN_SEARCH_DNS": WITH_USER, "FOREBAY_OPEN_SEARCH_BEARER": "a"}, "OPEN_SEARCH_DNS"),
        ({"OPEN_SEARCH_DNS": WITH_USER, "FOREBAY_OPEN_SEARCH_AWS_REGION": "a"}, "OPEN_SEARCH_DNS"),
        ({"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_API_KEY": "a", "FOREBAY_OPEN_SEARCH_BEARER": "b"}, ""),
        ({"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_BEARER": "b", "FOREBAY_OPEN_SEARCH_AWS_REGION": "a"}, ""),
        ({"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_AWS_SERVICE": "es"}, "FOREBAY_OPEN_SEARCH_AWS_REGION"),
        ({"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_CERT_FILE": "c.pem"}, "FOREBAY_OPEN_SEARCH_KEY_FILE"),
        ({"OPEN_SEARCH_DNS": URL, "FOREBAY_OPEN_SEARCH_KEY_FILE": "k.pem"}, "FOREBAY_OPEN_SEARCH_CERT_FILE"),
        ({"OPEN_SEARCH_DNS": "http://one", **PAIR}, "OPEN_SEARCH_DNS"),
        ({"OPEN_SEARCH_DNS": f"{URL},http://two", "FOREBAY_OPEN_SEARCH_CA_FILE": "ca.pem"}, "OPEN_SEARCH_DNS"),
        ({"FOREBAY_OPEN_SEARCH_API_KEY": "a"}, "OPEN_SEARCH_DNS"),
        ({"FOREBAY_OPEN_SEARCH_CA_FILE": "ca.pem"}, "OPEN_SEARCH_DNS"),
    ],
)
def test_credentials_that_contradict_each_other_are_both_named_on_one_line(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = complain(monkeypatch, **variables)
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said
    wanted = {name for name in variables if name != "OPEN_SEARCH_DNS"} | ({named} if named else set())
    # Of a pair of files either stands for both.
    assert {name for name in wanted - set(PAIR) if name not in said} == set()
    assert not wanted & set(PAIR) or any(name in said for name in PAIR)


# Secrets


def test_no_secret_shows_in_the_text_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "hunter2" * 6)
    monkeypatch.setenv("OPEN_SEARCH_DNS", "https://admin:hunter2@one:9200,https://admin:hunter2@two:9200")
    settings = load_settings()
    shown = f"{settings!r} {settings!s} {settings.open_search_dns} {settings.model_dump()}"
    monkeypatch.setenv("OPEN_SEARCH_DNS", "https://one:9200")
    for name in ("FOREBAY_OPEN_SEARCH_API_KEY", "FOREBAY_OPEN_SEARCH_BEARER"):
        monkeypatch.setenv(name, "hunter2")
        settings = load_settings()
        shown += f"{settings!r} {settings!s} {settings.model_dump()}"
        monkeypatch.delenv(name)
    assert "hunter2" not in shown
    assert "admin" not in shown
    assert "https://one:9200" in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://admin:hunter2@db/events"),
        ("DATABASE_URL", "postgres://admin:p@ss-hunter2@db/events"),
        ("DATABASE_URL", "postgres://db/events?user=admin&password=hunter2"),
        ("DATABASE_URL", "postgresql+asyncpg://admin:hunter2/x@db/events"),
        ("SERVER_PORT", "https://admin:hunter2@host"),
        ("OPEN_SEARCH_DNS", "admin:hunter2@host:9200"),
        ("OPEN_SEARCH_DNS", "https://admin:hunter2@host:port"),
        ("OPEN_SEARCH_DNS", "https://admin:hunter2/x@host:9200"),
        ("OPEN_SEARCH_DNS", "https://admin:hunter2?x@host:9200"),
        ("OPEN_SEARCH_DNS", "https://good:9200,hunter2"),
        ("FOREBAY_OPEN_SEARCH_API_KEY", "ApiKey hunter2"),
        ("FOREBAY_OPEN_SEARCH_API_KEY", "hunter2\nHost: x"),
        ("FOREBAY_OPEN_SEARCH_BEARER", "hunter2\u00e4"),
    ],
)
def test_no_secret_shows_in_a_complaint(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, JWT_SECRET="hunter2" * 6, FOREBAY_ACK="tape", **{name: value})
    assert "hunter2" not in said
    assert {line.partition(":")[0] for line in said.splitlines()} == {name, "FOREBAY_ACK"}


@pytest.mark.parametrize("value", [f"{SECRET}\n", f"{SECRET} ", f"\t{SECRET}", f"{SECRET}\r\n", " "])
def test_a_secret_with_blanks_at_its_ends_is_refused_on_one_line_that_does_not_show_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = complain(monkeypatch, JWT_SECRET=value)
    assert said == (
        "JWT_SECRET: the value is not allowed; expected: a key without blanks or line breaks at its ends, "
        "the same wherever tokens are signed with it"
    )


@pytest.mark.parametrize("kind", PUBLIC_KEYS)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_key_that_no_token_can_be_verified_with_is_refused_on_one_line_that_does_not_show_it(
    kind: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = complain(monkeypatch, JWT_SECRET=PUBLIC_KEYS[kind].strip() + end)
    assert said == (
        "JWT_SECRET: the value is not allowed; expected: a secret text for HS256, "
        "and no PEM, SSH or DER key or certificate"
    )


def test_a_short_secret_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short")
    assert resolve_secret(load_settings()) == "short"


def test_blanks_inside_a_secret_are_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "blanks  and\nlines may stand inside")
    assert resolve_secret(load_settings()) == "blanks  and\nlines may stand inside"


def test_a_secret_may_be_left_out_only_in_a_local_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().jwt_secret is None
    said = complain(monkeypatch, SERVER_ENVIRONMENT="production")
    assert said == "JWT_SECRET: not set; it may be left out only with SERVER_ENVIRONMENT=local"
    monkeypatch.setenv("JWT_SECRET", SECRET)
    assert resolve_secret(load_settings()) == SECRET


def test_a_secret_is_made_once_and_kept_for_its_owner_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite://data/spool.db")
    secret = resolve_secret(load_settings())
    assert len(secret) >= SecretAlgorithm.HS256.secret_chars_min
    assert resolve_secret(load_settings()) == secret
    kept = folder / "data" / "spool.db.secret"
    assert kept.read_text() == secret
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_two_made_secrets_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = set()
    for number in range(3):
        monkeypatch.setenv("DATABASE_URL", f"sqlite://{number}.db")
        secrets.add(resolve_secret(load_settings()))
    assert len(secrets) == 3


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", PUBLIC_KEYS["PEM"].encode()])
def test_a_kept_secret_that_is_none_is_not_replaced_in_silence(folder: Path, content: bytes) -> None:
    kept = folder / "sqlite3.db.secret"
    kept.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: not set, and sqlite3\.db\.secret .*remove that file"):
        resolve_secret(load_settings())
    assert kept.read_bytes() == content


def test_a_secret_that_cannot_be_kept_is_a_wrong_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("DATABASE_URL", "sqlite://file/spool.db")
    with pytest.raises(SettingsError, match=r"^JWT_SECRET: not set, and none can be kept at file/spool\.db\.secret: "):
        resolve_secret(load_settings())


# Variables that set nothing


def test_a_misspelled_variable_is_named_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_BULK_INTERVALL_S", "1")
    monkeypatch.setenv("FOREBAY_ACK", "disk")
    monkeypatch.setenv("FOREBAY_XYZZY_PLUGH_QUUX", "1")
    assert unknown_variables() == [
        ("FOREBAY_BULK_INTERVALL_S", "FOREBAY_BULK_INTERVAL_S"),
        ("FOREBAY_XYZZY_PLUGH_QUUX", None),
    ]


def test_variables_of_kubernetes_are_not_taken_for_misspelled_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOREBAY_PORT", "FOREBAY_PORT_3000_TCP", "FOREBAY_SERVICE_HOST", "FOREBAY_SERVICE_PORT_HTTP"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:3000")
    assert unknown_variables() == []


def test_unknown_variable_in_the_env_file_is_named_too(folder: Path) -> None:
    folder.joinpath(".env").write_text("forebay_bulk_workerss=3\nFOREBAY_BULK_WORKERS=3\nOTHER=1\n# FOREBAY_X=1\n")

    assert unknown_variables() == [("FOREBAY_BULK_WORKERSS", "FOREBAY_BULK_WORKERS")]


# Tokens


PROVIDER = {"issuer": "https://id.example", "algorithms": ["RS256"], "jwks_url": "https://id.example/jwks.json"}


def complain_of_provider(monkeypatch: pytest.MonkeyPatch, **members: object) -> str:
    """Return the complaint about a second provider; a member that is None is left out."""
    second = {name: value for name, value in {**PROVIDER, "issuer": "two", **members}.items() if value is not None}
    return complain(monkeypatch, FOREBAY_PROVIDERS=json.dumps([PROVIDER, second]))


def test_the_scopes_of_a_provider_are_those_of_tokens() -> None:
    assert set(get_args(ScopeName)) == set(Scope)


def test_a_provider_is_read_with_all_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {**PROVIDER, "audience": "events", "scopes": ["events:write"]}
    monkeypatch.setenv("FOREBAY_PROVIDERS", json.dumps([members]))
    [entry] = load_settings().providers
    assert json.loads(entry.model_dump_json(exclude_none=True)) == members


@pytest.mark.parametrize("value", ["", "x", "{}", "7", "[", '"x"', "[" * 10_000])
def test_providers_are_a_json_array(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOREBAY_PROVIDERS", "FOREBAY_JWT_SECRETS_OLD"):
        monkeypatch.setenv("SERVER_ENVIRONMENT", "local")
        if value:
            said = complain(monkeypatch, **{name: value})
            assert said.startswith(f"{name}: ")
            assert said.endswith(" is not allowed; expected: a JSON array")
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"issuer": None}, "FOREBAY_PROVIDERS[1].issuer: is missing"),
        ({"issuer": ""}, "FOREBAY_PROVIDERS[1].issuer: '' is not allowed; expected: have at least 1 character"),
        ({"algorithms": None}, "FOREBAY_PROVIDERS[1].algorithms: is missing"),
        ({"algorithms": []}, "FOREBAY_PROVIDERS[1].algorithms: [] is not allowed; expected: one at least"),
        ({"algorithms": ["HS256"]}, "FOREBAY_PROVIDERS[1].algorithms[0]: 'HS256' is not allowed; expected: 'RS256', "),
        ({"algorithms": ["RS256", "none"]}, "FOREBAY_PROVIDERS[1].algorithms[1]: 'none' is not allowed; expected: "),
        ({"scopes": ["events"]}, "FOREBAY_PROVIDERS[1].scopes[0]: 'events' is not allowed; expected: 'events:write'"),
        ({"scopes": []}, "FOREBAY_PROVIDERS[1].scopes: [] is not allowed; expected: one at least"),
        ({"jwks": "x"}, "FOREBAY_PROVIDERS[1].jwks: there is no such member"),
        ({"audience": 7}, "FOREBAY_PROVIDERS[1].audience: 7 is not allowed"),
        ({"pem_file": "key.pem"}, "FOREBAY_PROVIDERS[1]: "),
        ({"jwks_url": None}, "FOREBAY_PROVIDERS[1]: "),
        ({"issuer": "https://id.example"}, "FOREBAY_PROVIDERS: each needs an issuer of its own"),
    ],
)
def test_a_wrong_member_of_a_provider_is_named(
    members: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = complain_of_provider(monkeypatch, **members)
    assert complaint.startswith(said)
    assert len(complaint.splitlines()) == 1


def test_a_provider_is_not_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_JWT_ISSUER", "two")
    assert complain_of_provider(monkeypatch).startswith("FOREBAY_PROVIDERS: each needs an issuer of its own")


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/jwks.json",
        "http://10.0.0.1/jwks.json",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "ftp://id.example/",
        "file:///etc/passwd",
        "id.example",
        "https://",
        "https:///jwks.json",
        "https://user:hunter2@id.example/",
        "https://id.example:0/",
        "https://id.example:99999/",
        "https://id.example/#keys",
        "https://id.example/\n",
        "https://[::1/",
        "",
    ],
)
def test_keys_come_by_https_or_from_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain_of_provider(monkeypatch, jwks_url=url)
    assert said.startswith("FOREBAY_PROVIDERS[1].jwks_url: ")
    assert "hunter2" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example/a?b=c",
        "http://localhost:8080/",
        "http://127.1.2.3/",
        "http://[::1]:80/",
        "http://x.localhost/",
    ],
)
def test_http_is_enough_on_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_PROVIDERS", json.dumps([{**PROVIDER, "jwks_url": url}]))
    assert load_settings().providers[0].jwks_url == url


@pytest.mark.parametrize("key", PUBLIC_KEYS.values(), ids=PUBLIC_KEYS)
def test_an_old_secret_that_is_no_key_is_named_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = complain(monkeypatch, FOREBAY_JWT_SECRETS_OLD=json.dumps([SECRET, key]))
    assert said.startswith("FOREBAY_JWT_SECRETS_OLD[1]: the value is not allowed; expected: ")
    assert key[10:30] not in said
    said = complain(monkeypatch, FOREBAY_JWT_SECRETS_OLD=f'["{SECRET}"')
    assert said == "FOREBAY_JWT_SECRETS_OLD: the value is not allowed; expected: a JSON array"


def test_old_secrets_are_shown_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_JWT_SECRETS_OLD", json.dumps([SECRET]))
    settings = load_settings()
    assert SECRET not in repr(settings)
    assert [secret.get_secret_value() for secret in settings.jwt_secrets_old] == [SECRET]
