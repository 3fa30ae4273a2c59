"""A connection that a trusted proxy may have opened for a client: it begins with a header that names the client."""

from __future__ import annotations

import asyncio

import structlog

from forebay.errors import Rejection
from forebay.intake.connection import Connection
from forebay.intake.proxy_protocol import read_proxy_header

log = structlog.get_logger("forebay.intake")


class ProxiedConnection(Connection):
    """Reads the header of the PROXY protocol before the first request. Other peers than trusted proxies send none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as any connection; from a trusted proxy, wait for the header."""
        super().connection_made(transport)
        self._start: bytes | None = b"" if self._intake.guard.proxies.trusts(self.peer.decode()) else None

    def data_received(self, data: bytes) -> None:
        """Take the header, then parse the input behind it."""
        if self._start is not None:
            self._start += data
            try:
                header = read_proxy_header(self._start)
            except Rejection as error:
                log.warning("proxy_header_missing", peer=self.peer.decode(), cause=error.detail)
                self._transport.close()
                return
            if header is None:
                return
            data, self._start = self._start[header.size :], None
            self.peer = self.peer if header.address is None else header.address.encode()
        if data:
            super().data_received(data)
