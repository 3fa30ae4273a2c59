"""Whether the settings fit together, beyond what `Settings` itself refuses. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forebay.errors import SettingsError
from forebay.findings import Finding, Level
from forebay.settings import SECRET_CHARS_MIN, Settings, variable_name

WHAT = "settings"

SECONDS = (
    ("bulk_timeout_s", 5, None, "a busy OpenSearch takes longer, and every bulk is sent again"),
    ("retry_interval_s", None, 600, "an event that was not delivered waits so long for its next turn"),
    ("retry_delay_s_max", None, 300, "nothing is delivered for so long after OpenSearch is back"),
    ("bulk_interval_s", None, 300, "an event waits so long where few come"),
)
"""Times that are allowed and hardly meant: setting, least, most, and what it leads to outside."""


def judge_settings(
    settings: Settings, unknown: Sequence[tuple[str, str | None]], secret_chars: int | None
) -> Iterator[Finding]:
    """Say what is set and hardly meant; `secret_chars` is the length of the secret, None where none was made yet."""
    found = [*_judge_names(unknown), *_judge_secret(settings, secret_chars), *_judge_times(settings)]
    if settings.bulk_bytes_max > settings.channel_bytes_max:
        found.append(
            Finding(
                Level.WARN,
                WHAT,
                "FOREBAY_BULK_BYTES_MAX is larger than FOREBAY_CHANNEL_BYTES_MAX: no bulk is ever full",
                "make the channel some times as large as a bulk",
            )
        )
    yield from found
    if not found:
        sink = "OpenSearch" if settings.open_search_dns else "the embedded store"
        yield Finding(Level.OK, WHAT, f"environment {settings.server_environment}, events go to {sink}")


def judge_refusal(error: SettingsError) -> Iterator[Finding]:
    """Say what keeps every command and the server from starting."""
    for line in str(error).splitlines():
        yield Finding(Level.FAIL, WHAT, line, "correct it in the environment or in .env")


def _judge_names(unknown: Sequence[tuple[str, str | None]]) -> Iterator[Finding]:
    for name, nearest in unknown:
        advice = f"it may be meant for {nearest}" if nearest else "remove it"
        yield Finding(Level.WARN, WHAT, f"{name} sets nothing", advice)


def _judge_secret(settings: Settings, secret_chars: int | None) -> Iterator[Finding]:
    if secret_chars is not None and secret_chars < SECRET_CHARS_MIN:
        text = f"JWT_SECRET has fewer than {SECRET_CHARS_MIN} characters: tokens can be forged by trying"
        yield Finding(Level.WARN, WHAT, text, "`openssl rand -hex 32` makes one; clients then need new tokens")
    elif settings.jwt_secret is None and settings.open_search_dns:
        text = f"JWT_SECRET is not set; one is kept in {settings.secret_path}"
        yield Finding(Level.WARN, WHAT, text, "set it, so that tokens outlive that file")


def _judge_times(settings: Settings) -> Iterator[Finding]:
    for field, least, most, consequence in SECONDS:
        value = getattr(settings, field)
        if least is not None and value < least:
            text = f"{variable_name(field)} is {value:g}: {consequence}"
            yield Finding(Level.WARN, WHAT, text, f"set {least} or more")
        elif most is not None and value > most:
            text = f"{variable_name(field)} is {value:g}: {consequence}"
            yield Finding(Level.WARN, WHAT, text, f"set {most} or less")
