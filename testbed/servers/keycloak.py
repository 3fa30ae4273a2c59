"""A real Keycloak that a test can start, kill, pause and start again."""

import http.client
import shutil
from pathlib import Path

from testbed.servers.keycloak_install import install, make_environment
from testbed.servers.ports import HOST, free_ports
from testbed.servers.server_process import START_TIMEOUT_S, ServerProcess

POLL_TIMEOUT_S = 5.0
# Parts of the installation that all servers share: nothing writes into them.
SHARED = ("conf", "lib", "providers", "themes")


class KeycloakServer(ServerProcess):
    """One server on loopback with a port and a database of its own, which stay the same from start to start."""

    title = "Keycloak"

    def __init__(self, home: Path) -> None:
        """Prepare a server of the Keycloak in `home`, as `install` returns it; `start` starts it."""
        (self._port,) = free_ports(1)
        super().__init__()
        try:
            self._fill_folder(home)
        except BaseException:
            self._guarded.remove()
            raise

    @staticmethod
    def install() -> Path:
        """Fetch Keycloak if this was never done, and return its folder.

        Raises:
            ServerUnavailableError: it cannot be had on this machine.
        """
        return install()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerStartError: it ended, or was not ready in time.
        """
        options = ("--http-enabled=true", f"--http-host={HOST}", f"--http-port={self._port}", f"--hostname={self.url}")
        command = ("bash", "bin/kc.sh", "start", "--optimized", "--cache=local", *options)
        self._run(command, self._folder, make_environment(str(self._folder / "tmp")))
        self._wait_or_kill(START_TIMEOUT_S)

    def _fill_folder(self, home: Path) -> None:
        """Make a home of its own: Keycloak writes into the folder above that of its script."""
        for name in SHARED:
            (self._folder / name).symlink_to(home / name)
        for name in ("bin", "data"):
            shutil.copytree(home / name, self._folder / name)
        (self._folder / "tmp").mkdir()

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=POLL_TIMEOUT_S)
        try:
            connection.request("GET", "/realms/master")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
