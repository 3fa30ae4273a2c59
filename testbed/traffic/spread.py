"""Sends until every worker has had a part."""

import asyncio
import itertools

from testbed.servers.forebay import ForebayServer
from testbed.servers.observing import WAIT_S, read_metrics
from testbed.traffic.client import Client
from testbed.traffic.events import make_events

CONNECTIONS = 32
BATCH = 10


async def send_to_each(server: ForebayServer, client: Client, workers: int, events: int) -> None:
    """Send so many events over new connections, again and again until every worker has accepted some.

    Whichever is free takes a connection, and it may happen that one takes all of them.
    """
    async with asyncio.timeout(WAIT_S):
        for first in itertools.count(0, events):
            await client.send(make_events(first, events), batch=BATCH, connections=CONNECTIONS)
            samples = await asyncio.to_thread(read_metrics, server)
            if all(samples[f'forebay_events_accepted_total{{worker="{slot}"}}'] for slot in range(1, workers + 1)):
                return
