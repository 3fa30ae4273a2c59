"""The collector that a competent developer writes in an afternoon, to compare Forebay with.

FastAPI takes the event and checks the token, a queue in memory holds it, workers send bulks with opensearch-py.
Nothing here is slow on purpose: dependencies are coroutines, so none goes through the thread pool, and a worker takes
all queued events at once, without waiting for each.
"""

# No `from __future__ import annotations`: FastAPI resolves the annotations of the routes at run time.
import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException  # type: ignore[import-not-found,unused-ignore]
from fastapi.security import (  # type: ignore[import-not-found,unused-ignore]
    HTTPAuthorizationCredentials,
    HTTPBearer,
)
from opensearchpy import AsyncOpenSearch  # type: ignore[import-not-found,unused-ignore]
from opensearchpy.helpers import async_bulk  # type: ignore[import-not-found,unused-ignore]
from pydantic import BaseModel

OPEN_SEARCH_DNS = os.environ["OPEN_SEARCH_DNS"]
JWT_SECRET = os.environ["JWT_SECRET"]
BULK_SIZE = 1_000
BULK_INTERVAL_S = float(os.environ.get("BULK_INTERVAL_S", "10"))
WORKERS = 2

log = logging.getLogger("plain_collector")
queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=100_000)
bearer = HTTPBearer()


class Event(BaseModel):
    """An event as a client sends it."""

    log_id: str | None = None
    page: str
    event: str
    label: str | None = None
    target: str | None = None
    section: str | None = None
    param: dict[str, Any] | None = None


async def verified(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
    """Let only a valid token through."""
    try:
        return jwt.decode(
            credentials.credentials, JWT_SECRET, algorithms=["HS256"], options={"require": ["sub", "exp"]}
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "invalid token") from error


async def next_bulk() -> list[dict[str, Any]]:
    """Take up to `BULK_SIZE` events, waiting at most `BULK_INTERVAL_S` after the first."""
    events = [await queue.get()]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BULK_INTERVAL_S):
            while len(events) < BULK_SIZE:
                events.append(queue.get_nowait() if not queue.empty() else await queue.get())
    return events


async def send_bulks(client: AsyncOpenSearch) -> None:
    """Send the events of the queue, for ever."""
    while True:
        events = await next_bulk()
        try:
            await async_bulk(client, events, chunk_size=BULK_SIZE, max_retries=3)
        except Exception:
            log.exception("a bulk of %d events is lost", len(events))


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the workers as long as the server runs."""
    async with AsyncOpenSearch(OPEN_SEARCH_DNS) as client:
        workers = [asyncio.create_task(send_bulks(client)) for _ in range(WORKERS)]
        yield
        for worker in workers:
            worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/ping")  # type: ignore[untyped-decorator,unused-ignore]
async def ping() -> str:
    """Answer that the server is up."""
    return "pong"


@app.post("/events")  # type: ignore[untyped-decorator,unused-ignore]
async def register(
    event: Event,
    claims: Annotated[dict[str, Any], Depends(verified)],
    device_uuid: Annotated[str, Header()],
    app_version: Annotated[str, Header()],
    os_version: Annotated[str, Header()],
) -> dict[str, str]:
    """Queue one event for the next bulk."""
    log_id = event.log_id or str(uuid.uuid4())
    now = datetime.now(UTC)
    document = {
        "_op_type": "create",
        "_index": f"events_bench_{now:%Y-%m}",
        "_id": log_id,
        "@timestamp": now.isoformat(),
        "received_at": now.isoformat(),
        "log_id": log_id,
        "user_id": claims["sub"],
        "event_info": event.model_dump(exclude={"log_id"}, exclude_none=True),
        "device_uuid": device_uuid,
        "app_version": app_version,
        "os_version": os_version,
    }
    try:
        queue.put_nowait(document)
    except asyncio.QueueFull as error:
        raise HTTPException(503, "the queue is full") from error
    return {"log_id": log_id}
