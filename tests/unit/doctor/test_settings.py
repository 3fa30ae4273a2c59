"""Settings that are allowed and hardly meant are named with their consequence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from forebay.doctor.finding import Finding, Level
from forebay.doctor.settings import check, describe_refusal, judge_settings
from forebay.errors import SettingsError
from forebay.settings import Settings
from unit.doctor.contexts import make_context

SECRET = "hunter2" * 6


def judge(
    unknown: list[tuple[str, str | None]] | None = None, secret_chars: int | None = 42, **changed: Any
) -> list[Finding]:
    settings = Settings(JWT_SECRET=SecretStr(SECRET), _env_file=None).model_copy(update=changed)
    return list(judge_settings(settings, unknown or [], secret_chars))


def test_settings_as_they_come_are_well() -> None:
    (finding,) = judge()
    assert (finding.level, finding.text) == (Level.OK, "environment local, events go to the embedded store")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bulk_timeout_s": 4.9}, "FOREBAY_BULK_TIMEOUT_S is 4.9"),
        ({"retry_interval_s": 601.0}, "FOREBAY_RETRY_INTERVAL_S is 601"),
        ({"retry_delay_s_max": 301.0}, "FOREBAY_RETRY_DELAY_S_MAX is 301"),
        ({"bulk_interval_s": 301.0}, "FOREBAY_BULK_INTERVAL_S is 301"),
        ({"bulk_bytes_max": 2, "channel_bytes_max": 1}, "FOREBAY_BULK_BYTES_MAX is larger"),
        ({"secret_chars": 31}, "JWT_SECRET has fewer than 32 characters"),
        ({"jwt_secrets_old": (SecretStr("x" * 31),)}, "FOREBAY_JWT_SECRETS_OLD has one with fewer than 32"),
        ({"unknown": [("FOREBAY_X", None)]}, "FOREBAY_X sets nothing"),
        ({"jwt_secret": None, "open_search_dns": ("x",)}, "JWT_SECRET is not set"),
    ],
)
def test_a_setting_that_is_hardly_meant_is_named_with_the_next_step(changed: dict[str, Any], said: str) -> None:
    (finding,) = judge(**changed)

    assert finding.level is Level.WARN
    assert said in finding.text
    assert finding.advice
    assert "hunter2" not in repr(finding)


def test_nearest_name_of_an_unknown_variable_is_the_advice() -> None:
    (finding,) = judge([("FOREBAY_HOSTT", "FOREBAY_HOST")])
    assert finding.advice == "it may be meant for FOREBAY_HOST"


def test_secret_that_was_not_made_yet_is_no_short_one() -> None:
    assert [finding.level for finding in judge(secret_chars=None)] == [Level.OK]


def test_every_setting_that_is_refused_is_a_line() -> None:
    found = list(describe_refusal(SettingsError("A: no\nB: no")))
    assert [(finding.level, finding.text) for finding in found] == [(Level.FAIL, "A: no"), (Level.FAIL, "B: no")]


def test_a_file_of_a_provider_that_keeps_the_server_from_starting_is_named(tmp_path: Path) -> None:
    entry = {"issuer": "https://id.example", "algorithms": ["RS256"], "pem_file": str(tmp_path / "key.pem")}
    settings = Settings(JWT_SECRET=SecretStr(SECRET), _env_file=None, providers=json.dumps([entry]))
    findings = [finding for finding in check(make_context(settings)) if finding.level is Level.FAIL]
    assert [finding.text for finding in findings] == [
        f"FOREBAY_PROVIDERS[0].pem_file: {tmp_path}/key.pem cannot be read: No such file or directory"
    ]
