"""The real Forebay with a hasty supervisor: `python -m testbed.servers.hasty_forebay`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from forebay.settings import load_settings
from forebay.workers.supervisor import Intervals, run
from testbed.servers.forebay import ForebayServer


class HastyForebay(ForebayServer):
    """A server that pings its workers often, and looks for orphans and changes between them often."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(
            folder,
            {**settings, "PYTHONPATH": str(Path(__file__).parents[2])},
            [sys.executable, "-m", "testbed.servers.hasty_forebay"],
        )


if __name__ == "__main__":
    sys.exit(run(load_settings(), Intervals(ping_s=0.3, orphans_s=0.5, orphan_turn_s=1)))
