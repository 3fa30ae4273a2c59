"""Checks whether the settings fit together; `Settings` itself refuses only impossible ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, fail, ok, warn
from forebay.doctor.server import read_secret
from forebay.errors import SettingsError
from forebay.settings import Settings, unknown_variables, variable_name
from forebay.telemetry.counters import Counters
from forebay.tokens.selection import make_verifier

SECONDS = (
    ("bulk_timeout_s", 5, None, "a busy OpenSearch takes longer, and every bulk is sent again"),
    ("retry_interval_s", None, 600, "an event that was not delivered waits so long for its next turn"),
    ("retry_delay_s_max", None, 300, "nothing is delivered for so long after OpenSearch is back"),
    ("bulk_interval_s", None, 300, "an event waits so long if few come"),
)
"""Times that are allowed but hardly meant: setting, least, most, and the consequence beyond them."""


def check(context: Context) -> Iterator[Finding]:
    """Check for settings that are allowed but hardly meant."""
    secret = read_secret(context.settings)
    yield from judge_settings(context.settings, unknown_variables(), None if secret is None else len(secret))
    try:
        make_verifier(context.settings, secret or "", Counters())
    except SettingsError as error:
        yield from describe_refusal(error)


def judge_settings(
    settings: Settings, unknown: Sequence[tuple[str, str | None]], secret_chars: int | None
) -> Iterator[Finding]:
    """Judge settings; `secret_chars` is the length of the secret, None if none was made yet."""
    found = [*_judge_names(unknown), *_judge_secret(settings, secret_chars), *_judge_old_secrets(settings)]
    found += _judge_times(settings)
    if settings.bulk_bytes_max > settings.channel_bytes_max:
        text = "FOREBAY_BULK_BYTES_MAX is larger than FOREBAY_CHANNEL_BYTES_MAX: no bulk is ever full"
        found.append(warn(text, "make the channel some times as large as a bulk"))
    yield from found
    if not found:
        sink = "OpenSearch" if settings.open_search_dns else "the embedded store"
        yield ok(f"environment {settings.server_environment}, events go to {sink}")


def describe_refusal(error: SettingsError) -> Iterator[Finding]:
    """Return a finding for each setting that keeps every command and the server from starting."""
    for line in str(error).splitlines():
        yield fail(line, "correct it in the environment or in .env")


def _judge_names(unknown: Sequence[tuple[str, str | None]]) -> Iterator[Finding]:
    for name, nearest in unknown:
        advice = f"it may be meant for {nearest}" if nearest else "remove it"
        yield warn(f"{name} sets nothing", advice)


def _judge_secret(settings: Settings, secret_chars: int | None) -> Iterator[Finding]:
    chars_min = settings.jwt_algorithm.secret_chars_min
    if secret_chars is not None and secret_chars < chars_min:
        text = f"JWT_SECRET has fewer than {chars_min} characters: tokens can be forged by trying"
        yield warn(text, "`openssl rand -hex 32` makes one; clients then need new tokens")
    elif settings.jwt_secret is None and settings.open_search_dns:
        text = f"JWT_SECRET is not set; one is kept in {settings.secret_path}"
        yield warn(text, "set it, so that tokens outlive that file")


def _judge_old_secrets(settings: Settings) -> Iterator[Finding]:
    chars_min = settings.jwt_algorithm.secret_chars_min
    if any(len(old.get_secret_value()) < chars_min for old in settings.jwt_secrets_old):
        text = f"FOREBAY_JWT_SECRETS_OLD has one with fewer than {chars_min} characters: tokens can be forged by trying"
        yield warn(text, "remove it as soon as no client has a token that was signed with it")


def _judge_times(settings: Settings) -> Iterator[Finding]:
    for field, least, most, consequence in SECONDS:
        value = getattr(settings, field)
        if least is not None and value < least:
            text = f"{variable_name(field)} is {value:g}: {consequence}"
            yield warn(text, f"set {least} or more")
        elif most is not None and value > most:
            text = f"{variable_name(field)} is {value:g}: {consequence}"
            yield warn(text, f"set {most} or less")
