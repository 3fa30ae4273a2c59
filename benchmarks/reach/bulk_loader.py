"""The simplest client that fills OpenSearch: it sends ready-made bulks over a few connections, and does nothing else.

python -m benchmarks.reach.bulk_loader PORT FILE CONNECTIONS

FILE holds the bulks, each with an empty line behind it.
"""

from __future__ import annotations

import http.client
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

PATH = "/_bulk?filter_path=errors,items.*.status,items.*.error.type"
HEADERS = {"Content-Type": "application/x-ndjson"}


def send_all(port: int, bulks: SimpleQueue[bytes]) -> None:
    """Send bulks over one connection until none is left.

    Raises:
        RuntimeError: a bulk was not taken as a whole.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while True:
        try:
            bulk = bulks.get_nowait()
        except Empty:
            return
        connection.request("POST", PATH, bulk, HEADERS)
        answer = connection.getresponse().read()
        if not answer.startswith(b'{"errors":false'):
            raise RuntimeError(f"a bulk was refused: {answer[:500]!r}")


def main() -> int:
    """Read the bulks and send them."""
    port, path, connections = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    bulks: SimpleQueue[bytes] = SimpleQueue()
    for bulk in path.read_bytes().split(b"\n\n")[:-1]:
        bulks.put(bulk + b"\n")
    with ThreadPoolExecutor(connections) as pool:
        for sent in [pool.submit(send_all, port, bulks) for _ in range(connections)]:
            sent.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
