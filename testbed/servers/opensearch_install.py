"""Fetches a real OpenSearch once and keeps it, unpacked, in the repository's cache folder."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "3.4.0"
ARTIFACT = f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip"
ZIP_SHA256 = "6540e95fe8bfaedc3eb1c58e829912ea2203af2ac1f88f76411c20a2fc5254a6"
# Pinned, so that the same command runs under every Maven.
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
FETCH_TIMEOUT_S = 600
NAME = f"opensearch-{VERSION}"
CACHE = Path(__file__).resolve().parents[2] / ".cache"


class OpenSearchUnavailableError(Exception):
    """OpenSearch cannot be had on this machine; the message names in one line the missing part."""


def install(cache: Path = CACHE) -> Path:
    """Return the folder of the unpacked OpenSearch, fetching it the first time.

    Raises:
        OpenSearchUnavailableError: there is no Maven, or Maven got nothing.
    """
    home = cache / NAME
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{NAME}.lock"):
        # Another test run may have put it there while this one waited for the lock.
        if not home.is_dir():
            _remove_interrupted(cache)
            _fetch_into(home)
    return home


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_interrupted(cache: Path) -> None:
    for leftover in cache.glob(f"{NAME}.part-*"):
        shutil.rmtree(leftover)


def _fetch_into(home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{NAME}.part-") as part:
        archive = _download(Path(part))
        verify(archive, ZIP_SHA256)
        _unpack(archive, Path(part))
        # Last, and in one step: a folder of this name is always whole.
        (Path(part) / NAME).rename(home)


def _download(folder: Path) -> Path:
    copy_artifact(ARTIFACT, folder)
    return folder / f"{NAME}.zip"


def copy_artifact(artifact: str, folder: Path) -> None:
    """Fetch a file from Maven's repository into a folder.

    Raises:
        OpenSearchUnavailableError: there is no Maven, or Maven got nothing.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise OpenSearchUnavailableError("a real OpenSearch needs Maven to fetch it: `mvn` is not on PATH")
    command = [maven, "-q", "-B", COPY_GOAL, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    try:
        # In the empty folder, so that no pom.xml further up has a say.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise OpenSearchUnavailableError(f"Maven did not fetch {artifact} within {FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise OpenSearchUnavailableError(f"Maven could not fetch {artifact}: {_first_error(done.stdout)}")


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
            # zipfile drops the permissions, and OpenSearch's scripts call one another.
            unpacked.chmod(entry.external_attr >> 16 & 0o755)
