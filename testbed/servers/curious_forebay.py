"""The real Forebay, which asks identity providers for their keys ten times as often: `python -m` this module."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path

from forebay.cli import main
from forebay.tokens import jwks
from testbed.servers.forebay import ForebayServer

INTERVALS = jwks.Intervals(asking_s=1, refresh_s=3, refresh_s_min=1, refresh_s_max=5, timeout_s=2)


class CuriousForebay(ForebayServer):
    """A server that sees within seconds which keys a provider has, or that it is away."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(
            folder,
            {**settings, "PYTHONPATH": str(Path(__file__).parents[2])},
            [sys.executable, "-m", "testbed.servers.curious_forebay", "serve"],
        )


if __name__ == "__main__":
    # The times are no settings. The name is looked up only when a server with providers starts.
    jwks.PublishedKeys = functools.partial(jwks.PublishedKeys, intervals=INTERVALS)  # type: ignore[assignment,misc]
    main()
