"""HTTP to OpenSearch: one session, several hosts, ready bytes in, status and bytes out.

A thin layer over aiohttp: see docs/decisions/opensearch-client.md for why it is not opensearch-py.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import NamedTuple, TypeVar

import aiohttp
import msgspec

from forebay.errors import AnswerTooLarge, OperatorNeeded, SinkUnreachable
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.advice import CERTIFICATE, CLIENT_CERTIFICATE
from forebay.sinks.opensearch.hosts import BACKOFF, Hosts

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""The most bytes that are read of an answer: 16 KB for each event of a usual bulk, which needs far less."""

HEAD_LINE_BYTES_MAX = 64 * 1024
HEAD_LINES_MAX = 1_000
"""Limits of an answer's head, eight times those of aiohttp: OpenSearch may add many warnings to it."""

UNABLE = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""Statuses of a host, or of the proxy before it, if another host may do better."""


class Answer(NamedTuple):
    """An answer of a host."""

    status: int
    body: bytes

    def decode(self, kind: type[T]) -> T:
        """Return the JSON of the body.

        Raises:
            SinkUnreachable: it is no JSON, or has another form.
        """
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (ValueError, RecursionError) as error:
            raise SinkUnreachable(f"the answer does not have OpenSearch's form: {error}") from error


class _Failure(NamedTuple):
    """The reason why a host gave no answer, and advice if only an operator can help."""

    text: str
    advice: str = ""


class OpenSearchClient:
    """Sends requests to the hosts in turn; if one is dead, the next gets the request, the dead one none for a while."""

    def __init__(
        self, access: Access, timeout_s: float, connections_max: int, answer_bytes_max: int = ANSWER_BYTES_MAX
    ) -> None:
        self._signer = access.signer
        self._answer_bytes_max = answer_bytes_max
        self._addresses = [(host.url, access.headers(host)) for host in access.hosts]
        self._hosts = Hosts(len(access.hosts), BACKOFF)
        self._loop = asyncio.get_running_loop()
        # No compressed answers: OpenSearch 2.19.0 hangs when asked for zstd (opensearch-project/OpenSearch#17339).
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, ssl=access.tls or True),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            headers={"Accept-Encoding": "identity"},
            max_line_size=HEAD_LINE_BYTES_MAX,
            max_field_size=HEAD_LINE_BYTES_MAX,
            max_headers=HEAD_LINES_MAX,
        )

    async def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Answer:
        """Send a request and return the answer, with any status.

        Raises:
            AnswerTooLarge: a host's answer does not end within the limit.
            OperatorNeeded: no host can be trusted, or none trusts us.
            SinkUnreachable: no host gave a whole answer in time. The request may have been carried out.
        """
        failures: dict[int, _Failure] = {}
        unable: Answer | None = None
        tried: list[int] = []
        while (number := self._hosts.choose(self._loop.time(), tried)) is not None:
            tried.append(number)
            try:
                answer = await self._send(number, method, path, body, content_type)
            except TimeoutError as error:
                self._hosts.failed(number, self._loop.time())
                failures[number] = _Failure(_explain_timeout(error))
                # The next host is tried only if no connection can be made: a slow answer would cost the time again.
                if not isinstance(error, aiohttp.ConnectionTimeoutError):
                    break
            # A name or an address that a library cannot use is a `ValueError`; it counts like no connection.
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._hosts.failed(number, self._loop.time())
                failures[number] = _explain(error)
            except BaseException:
                self._hosts.dropped(number)
                raise
            else:
                if answer.status not in UNABLE:
                    self._hosts.answered(number)
                    return answer
                self._hosts.failed(number, self._loop.time())
                unable = answer
        if unable is not None:
            return unable
        raise self._unreachable(failures)

    async def _send(self, number: int, method: str, path: str, body: bytes | None, content_type: str) -> Answer:
        address, headers = self._addresses[number]
        url = address + path
        if content_type:
            headers = headers | {"Content-Type": content_type}
        if self._signer is not None:
            headers = await self._signer.sign(method, url, headers, body or b"")
        async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            return Answer(response.status, await self._read(address, response.content))

    async def _read(self, address: str, content: aiohttp.StreamReader) -> bytes:
        body = bytearray()
        async for part in content.iter_any():
            body += part
            if len(body) > self._answer_bytes_max:
                raise AnswerTooLarge(f"{address}: its answer is larger than {self._answer_bytes_max} bytes")
        return bytes(body)

    def _unreachable(self, failures: dict[int, _Failure]) -> SinkUnreachable:
        text = "; ".join(f"{self._addresses[number][0]}: {failure.text}" for number, failure in failures.items())
        advices = [failure.advice for failure in failures.values()]
        # One that is only down may come back by itself.
        return OperatorNeeded(text, "certificate_refused", advices[0]) if all(advices) else SinkUnreachable(text)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        # The transports close in the next round of the loop (aiohttp's documentation, "Graceful Shutdown").
        await asyncio.sleep(0)


def _explain_timeout(error: TimeoutError) -> str:
    return "no connection in time" if isinstance(error, aiohttp.ConnectionTimeoutError) else "no answer in time"


def _explain(error: Exception) -> _Failure:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        reason = getattr(cause, "verify_message", "") or str(cause)
        return _Failure(f"its certificate is not to be trusted: {reason}", CERTIFICATE)
    text = str(error) or type(error).__name__
    # If it cannot send, aiohttp gives the cause only as `__cause__`; if it cannot connect, in the text.
    if error.__cause__ and not isinstance(error, aiohttp.ClientConnectorError) and str(error.__cause__) not in text:
        text = f"{text}: {error.__cause__}"
    # OpenSSL's names for the other side's objections to our certificate; before TLS 1.3 they all have one name.
    if "[SSL:" in text and any(part in text for part in ("CERTIFICATE", "UNKNOWN_CA", "ALERT_HANDSHAKE_FAILURE")):
        return _Failure(f"it does not take our certificate: {text}", CLIENT_CERTIFICATE)
    return _Failure(text)
