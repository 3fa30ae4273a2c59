"""A real nginx in front of a server of the tests: for TLS, passwords, limits, and pages of its own."""

import os
import shutil
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from testbed.servers.certificates import Pair
from testbed.servers.guarded_folder import GuardedFolder
from testbed.servers.ports import HOST, free_ports

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.02

# Everything that nginx writes goes into its own folder, and one process does it all.
CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port}{tls};
        {directives}
        location / {{
            {location}
            proxy_pass {upstream};
            proxy_http_version 1.1;
        }}
    }}
}}
"""


class NginxMissingError(Exception):
    """This machine has no nginx."""


class NginxServer:
    """One nginx on loopback, before an upstream server. It is gone after `close`, or when the test run dies."""

    def __init__(
        self, upstream: str, directives: str = "", location: str = "", certificate: Pair | None = None
    ) -> None:
        # It is a program for administrators, whose folder is not on the PATH of every account.
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise NginxMissingError("a real nginx is needed, and there is no `nginx` on this machine")
        self._program = program
        (self.port,) = free_ports(1)
        self.url = f"{'https' if certificate else 'http'}://{HOST}:{self.port}"
        if certificate is not None:
            directives += f"\nssl_certificate {certificate.certificate}; ssl_certificate_key {certificate.key};"
        self._guarded = GuardedFolder("forebay-nginx-")
        self._config = self._guarded.path / "nginx.conf"
        self._config.write_text(
            CONFIG.format(
                folder=self._guarded.path,
                host=HOST,
                port=self.port,
                tls=" ssl" if certificate else "",
                directives=directives,
                location=location,
                upstream=upstream,
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        log = self._guarded.path / "error.log"
        command = [self._program, "-c", str(self._config), "-p", str(self._guarded.path), "-e", str(log)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._guarded.guard(self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._takes_connections():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """End it at once; do nothing if none runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None
            self._guarded.unguard()

    def close(self) -> None:
        """End it and remove its folder."""
        try:
            self.kill()
        finally:
            self._guarded.remove()

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True
