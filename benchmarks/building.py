"""Installs and builds the servers that Forebay is compared with. What a machine cannot build is left out."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.candidates import BENTHOS, BUILT, OTEL, OTEL_DISK, PEERS, PLAIN, PLAIN_PYTHON, ROOT, RUST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUILD_WITHIN_S = 1_200
LOCK = ROOT / "requirements" / "bench.lock"
SOURCE_LINE = re.compile(r'^source = ".*"\n', re.MULTILINE)
CHECKSUM_LINE = re.compile(r"^(?=checksum = )", re.MULTILINE)


class BuildError(Exception):
    """A peer cannot be built here."""


def build(names: list[str]) -> dict[str, str]:
    """Build the peers among `names`; return the reasons why some could not be built."""
    BUILT.mkdir(parents=True, exist_ok=True)
    plan: list[tuple[Callable[[], None], tuple[str, ...]]] = [
        (install_plain, (PLAIN.name,)),
        (build_rust, (RUST.name,)),
        (lambda: build_go("benthos"), (BENTHOS.name,)),
        (lambda: build_go("otel"), (OTEL.name, OTEL_DISK.name)),
    ]
    reasons: dict[str, str] = {}
    for make, made in plan:
        wanted = [name for name in made if name in names]
        if not wanted:
            continue
        try:
            make()
        except BuildError as error:
            reasons |= dict.fromkeys(wanted, str(error))
    return reasons


def install_plain() -> None:
    """Make the environment of the plain collector from its lock, unless this lock is installed already."""
    stamp = PLAIN_PYTHON.parent.parent / "installed-lock"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    run([sys.executable, "-m", "venv", str(stamp.parent)], ROOT)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
    run([str(PLAIN_PYTHON), *install], ROOT)
    stamp.write_text(digest)


def build_go(name: str) -> None:
    """Build a program of Go; go.sum holds the hashes of its modules."""
    run(["go", "build", "-trimpath", "-o", str(BUILT / name), "."], PEERS / name)


def build_rust() -> None:
    """Build the collector in Rust from the locked versions."""
    # Beside the sources Cargo would leave its lock file, and a directory of its own.
    sources = BUILT / "rust-sources"
    shutil.copytree(PEERS / "rust", sources, dirs_exist_ok=True)
    restore_lock(sources)
    run(["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", str(BUILT / "rust")], sources)


def restore_lock(sources: Path) -> None:
    """Make Cargo.lock from versions.lock, which has no addresses: Cargo itself tells the one of its registry."""
    versions, lock = (sources / "versions.lock").read_text(), sources / "Cargo.lock"
    if lock.is_file() and SOURCE_LINE.sub("", lock.read_text()) == versions:
        return
    run(["cargo", "generate-lockfile", "--quiet"], sources)
    source = SOURCE_LINE.search(lock.read_text())
    assert source is not None
    lock.write_text(CHECKSUM_LINE.sub(lambda _: source[0], versions))


def run(command: list[str], directory: Path) -> None:
    """Run one step of a build.

    Raises:
        BuildError: the tool is missing or has failed.
    """
    if shutil.which(command[0]) is None:
        raise BuildError(f"{command[0]} is not installed")
    print(f"building: {' '.join(command[:3])} in {directory.name}", file=sys.stderr)
    try:
        done = subprocess.run(
            command, cwd=directory, timeout=BUILD_WITHIN_S, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took longer than {BUILD_WITHIN_S} s") from error
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        raise BuildError(f"{command[0]} failed in {directory.name}")
