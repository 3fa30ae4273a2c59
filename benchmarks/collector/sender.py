"""A client of OTLP over HTTP that sends a request again, as its specification says, until it is answered for good."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from http import HTTPStatus

import aiohttp
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from benchmarks.collector.records import request_body

RETRYABLE = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
FIRST_DELAY_S = 0.5
DELAY_S_MAX = 5.0
ANSWER_WITHIN_S = 30.0


class Sender:
    """Sends log records at a steady rate, each request repeated unchanged until it is answered for good.

    Attributes:
        sent: the number of records in requests that were begun.
        acknowledged: the numbers of the records that were answered with 200, less those of refused ones.
        answers: requests by the status of their answer; `no answer` counts those without one.
        refused: the number of records that the server refused for good.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/v1/logs"
        self._headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token}"}
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.answers: Counter[str] = Counter()
        self.refused = 0

    async def send(self, seconds: float, requests_per_s: float, records: int) -> None:
        """Begin so many requests a second, of so many records each; return when the last is answered."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        # No limit: a request that waits for its next try must not hold up others.
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for number in range(round(seconds * requests_per_s)):
                await asyncio.sleep(began_at + number / requests_per_s - loop.time())
                numbers = range(self.sent, self.sent + records)
                self.sent += records
                tasks.create_task(self.insist(session, numbers))

    async def insist(self, session: aiohttp.ClientSession, numbers: range) -> None:
        """Send one request until it has an answer that is not to be followed by another try."""
        body = request_body(numbers)
        delay_s = FIRST_DELAY_S
        while True:
            wait_s = 0.0
            try:
                async with session.post(self._url, data=body, headers=self._headers) as response:
                    answer = await response.read()
                    self.answers[str(response.status)] += 1
                    if response.status not in RETRYABLE:
                        self._settle(numbers, response.status, answer)
                        return
                    wait_s = _retry_after_s(response)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.answers["no answer"] += 1
            await asyncio.sleep(wait_s or delay_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads tries, no secret
            delay_s = min(2 * delay_s, DELAY_S_MAX)

    def _settle(self, numbers: range, status: int, answer: bytes) -> None:
        if status != HTTPStatus.OK:
            self.refused += len(numbers)
            return
        rejected = ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records
        if rejected:
            # The answer does not name them, so none of the request counts as acknowledged.
            self.refused += rejected
            return
        self.acknowledged.update(numbers)


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
