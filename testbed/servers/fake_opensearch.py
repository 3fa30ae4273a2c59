"""An OpenSearch of a few lines, in the event loop of the test, for answers that no real one can be made to give."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from testbed.servers.ports import HOST


class FakeOpenSearch:
    """Takes bulks, and resets the connection of those that hold a certain text.

    Attributes:
        poison: that text.
        documents: its documents, by `_id`.
        resets: the number of connections that it reset.
    """

    def __init__(self, poison: bytes) -> None:
        self.poison = poison
        self.documents: dict[str, Any] = {}
        self.resets = 0
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/_bulk", self._bulk)
        app.router.add_route("*", "/{path:.*}", self._other)
        self._runner = web.AppRunner(app, access_log=None)
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _bulk(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.poison in body:
            self.resets += 1
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        lines = body.splitlines()
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            log_id = json.loads(action)["create"]["_id"]
            was_there = log_id in self.documents
            self.documents.setdefault(log_id, json.loads(document))
            error = {"error": {"type": "version_conflict_engine_exception", "reason": "exists"}} if was_there else {}
            items.append({"create": {"status": 409 if was_there else 201, **error}})
        return web.json_response({"errors": False, "items": items})

    async def _other(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"acknowledged": True}, status=404 if request.method == "GET" else 200)
