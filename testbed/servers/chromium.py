"""A real Chromium, and a server of pages for it: each address of loopback is an origin of its own."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from playwright.async_api import BrowserContext, async_playwright

from testbed.servers.ports import HOST

PROGRAM = "chromium"


class ChromiumMissingError(Exception):
    """There is no Chromium on this machine."""


@asynccontextmanager
async def open_chromium() -> AsyncIterator[BrowserContext]:
    """Start a Chromium without a window, with nothing remembered from before.

    Raises:
        ChromiumMissingError: there is none.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ChromiumMissingError("Chromium is missing: apt-get install chromium")
    async with async_playwright() as playwright:
        # It has no sandbox of its own in a container, as root; it sees pages of the tests only.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield await browser.new_context()
        finally:
            await browser.close()


class PageServer:
    """Serves one page at every address of loopback."""

    def __init__(self, page: str) -> None:
        content = page.encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                del format, args

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def origin(self, host: str = HOST) -> str:
        """Return the origin of its page, by one of the names of loopback."""
        return f"http://{host}:{self._server.server_port}"
