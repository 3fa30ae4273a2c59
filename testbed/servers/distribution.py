"""Fetches a server's distribution once with Maven, and keeps it, unpacked, in the repository's cache folder."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# Pinned, so that the same command runs under every Maven.
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
FETCH_TIMEOUT_S = 600
CACHE = Path(__file__).resolve().parents[2] / ".cache"


class ServerUnavailableError(Exception):
    """A server cannot be had on this machine; the message names in one line the missing part."""


class Distribution(NamedTuple):
    """A zip file with a server in it.

    Attributes:
        name: of the only folder in the zip.
        artifact: for Maven.
        zip_sha256: of the file.
    """

    name: str
    artifact: str
    zip_sha256: str


def leave(home: Path) -> None:
    """Prepare nothing."""
    del home


def install(distribution: Distribution, prepare: Callable[[Path], None] = leave, cache: Path = CACHE) -> Path:
    """Return the folder of the unpacked server, fetching it the first time.

    `prepare` is called once, with the new folder, which then still has another path.

    Raises:
        ServerUnavailableError: there is no Maven, or Maven got nothing.
    """
    home = cache / distribution.name
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{distribution.name}.lock"):
        # Another test run may have put it there while this one waited for the lock.
        if not home.is_dir():
            _remove_interrupted(cache, distribution)
            _fetch_into(home, distribution, prepare)
    return home


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_interrupted(cache: Path, distribution: Distribution) -> None:
    for leftover in cache.glob(f"{distribution.name}.part-*"):
        shutil.rmtree(leftover)


def _fetch_into(home: Path, distribution: Distribution, prepare: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{distribution.name}.part-") as part:
        copy_artifact(distribution.artifact, Path(part))
        (archive,) = Path(part).glob("*.zip")
        verify(archive, distribution.zip_sha256)
        _unpack(archive, Path(part))
        unpacked = Path(part) / distribution.name
        prepare(unpacked)
        # Last, and in one step: a folder of this name is always whole.
        unpacked.rename(home)


def copy_artifact(artifact: str, folder: Path) -> None:
    """Fetch a file from Maven's repository into a folder.

    Raises:
        ServerUnavailableError: there is no Maven, or Maven got nothing.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailableError(f"Maven is needed to fetch {artifact}: `mvn` is not on PATH")
    command = [maven, "-q", "-B", COPY_GOAL, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    try:
        # In the empty folder, so that no pom.xml further up has a say.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ServerUnavailableError(f"Maven did not fetch {artifact} within {FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise ServerUnavailableError(f"Maven could not fetch {artifact}: {_first_error(done.stdout)}")


def _first_error(maven_output: str) -> str:
    errors = (line.partition("[ERROR] ")[2] for line in maven_output.splitlines())
    return next(filter(None, errors), "it gave no reason")


def verify(archive: Path, sha256: str) -> None:
    """Check that a file is the one that was meant.

    Raises:
        ValueError: it is another one.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{archive.name} has SHA-256 {found}, expected {sha256}")


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            unpacked = Path(zipped.extract(entry, folder))
            # zipfile drops the permissions, and the scripts of a server call one another.
            unpacked.chmod(entry.external_attr >> 16 & 0o755)
