"""The real OpenSearch of the tests: its version, and how to get it."""

from pathlib import Path

from testbed.servers.distribution import CACHE, Distribution
from testbed.servers.distribution import install as install_distribution

VERSION = "3.4.0"
OPENSEARCH = Distribution(
    name=f"opensearch-{VERSION}",
    artifact=f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip",
    zip_sha256="6540e95fe8bfaedc3eb1c58e829912ea2203af2ac1f88f76411c20a2fc5254a6",
)


def install(cache: Path = CACHE) -> Path:
    """Return the folder of the unpacked OpenSearch, fetching it the first time.

    Raises:
        ServerUnavailableError: it cannot be had on this machine.
    """
    return install_distribution(OPENSEARCH, cache=cache)
