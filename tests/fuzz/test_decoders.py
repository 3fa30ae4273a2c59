"""Every decoder of the registry bears a few seconds of libFuzzer; `make fuzz` gives each ten minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest

from forebay.intake.formats.compressed import CODINGS
from forebay.intake.formats.registry import FORMATS

pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 and Python 3.11 only")

ROOT = Path(__file__).parents[2]
SECONDS = 3
SEED = 1
END_S_MAX = 120


HARNESS = ["-m", "fuzz.harness"]


def run(*arguments: str, folder: Path = ROOT, program: Sequence[str] = HARNESS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT)))},
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=END_S_MAX,
    )


@lru_cache
def decoders() -> list[str]:
    return run().stdout.split()


def test_every_format_and_every_coding_is_fuzzed() -> None:
    assert len(decoders()) == len(set(decoders())) >= len(FORMATS) + len(CODINGS) - 1


@pytest.mark.parametrize("decoder", decoders())
def test_whatever_the_bytes_are_they_are_taken_or_refused(tmp_path: Path, decoder: str) -> None:
    done = run(decoder, f"-max_total_time={SECONDS}", f"-seed={SEED}", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done" in done.stderr


@pytest.mark.parametrize("decoder", ["event-json", "gzip"])
def test_a_fault_is_found(tmp_path: Path, decoder: str) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(BROKEN)
    bad = tmp_path / "bad"
    bad.write_bytes(b"any")
    done = run(decoder, str(bad), folder=tmp_path, program=[str(broken)])
    assert done.returncode != 0
    assert "RuntimeError: a fault" in done.stdout + done.stderr


BROKEN = """
import asyncio, sys
from fuzz import harness
from forebay.intake.formats import compressed, single

def fail(*_):
    raise RuntimeError("a fault")

harness.unpack = single.SingleEvent.decode = fail
asyncio.run(harness._main())
"""
