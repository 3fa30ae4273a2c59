"""Log lines: one JSON object each, and no secret in any."""

import json
import subprocess
import sys

FAILURE = """
import structlog
from forebay.setting_values import LogFormat
from forebay.telemetry.logs import configure_logs
configure_logs(LogFormat("{log_format}"), "info")
def fail(secret):
    return 1 / 0
try:
    fail("hun" + "ter2")
except ZeroDivisionError:
    structlog.get_logger("forebay.test").exception("went_wrong", events=3)
"""


def log_failure(log_format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FAILURE.format(log_format=log_format)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.stderr


def test_a_failure_is_one_json_line_with_its_traceback_and_without_the_values_of_variables() -> None:
    (line,) = log_failure("json").splitlines()
    logged = json.loads(line)
    assert (logged["event"], logged["events"], logged["level"]) == ("went_wrong", 3, "error")
    assert logged["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert "hunter2" not in line


def test_a_failure_as_text_shows_its_traceback_and_not_the_values_of_variables() -> None:
    text = log_failure("text")
    assert "went_wrong" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "\x1b" not in text, "colours are for terminals"
    assert "hunter2" not in text


SIGNING = """
import asyncio
from forebay.setting_values import LogFormat
from forebay.setting_values import (AwsService)
from forebay.sinks.opensearch.signing import Signer
from forebay.telemetry.logs import configure_logs
configure_logs(LogFormat("json"), "debug")
signer = Signer("eu-west-1", AwsService("es"))
signed = asyncio.run(signer.sign("GET", "https://one/", dict(), b""))
print(signed["X-Amz-Security-Token"])
"""


def test_the_text_that_is_signed_for_aws_is_logged_at_no_level() -> None:
    secrets = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "hunter2-token"}
    done = subprocess.run(
        [sys.executable, "-c", SIGNING], env=secrets, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "hunter2-token\n"
    assert "hunter2" not in done.stderr
    assert "Signature" not in done.stderr


SLOT = """
import logging
import threading
import structlog
from forebay.setting_values import LogFormat
from forebay.telemetry.logs import configure_logs
configure_logs(LogFormat.JSON, "info", 2)
threading.Thread(target=lambda: structlog.get_logger("forebay.test").info("ours")).start()
logging.getLogger("theirs").warning("theirs")
"""


def test_every_line_of_one_of_several_workers_names_its_slot() -> None:
    done = subprocess.run([sys.executable, "-c", SLOT], capture_output=True, text=True, check=True, timeout=30)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["event"]: line["worker"] for line in lines} == {"ours": 2, "theirs": 2}
