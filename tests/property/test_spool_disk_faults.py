"""A spool keeps its word on a disk that fails: answered commits are there, refused ones are not, nothing is damaged.

Every history follows from its seed. `FOREBAY_TEST_HISTORIES` says how many of them there are, and `FOREBAY_TEST_SEED`
which is the first: with 1 and the seed of a failure, that one alone.
"""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import structlog

from property.memory import make_folder
from property.spool_history import SpoolHistory
from testbed.servers.faulty_vfs import FaultyFiles, Policy, faulty_files

HISTORIES = int(os.environ.get("FOREBAY_TEST_HISTORIES", "1000"))
FIRST_SEED = int(os.environ.get("FOREBAY_TEST_SEED", "1"))

ENOUGH = 1000
"""With so many histories everything happens that can happen."""

MUST_HAPPEN = (
    "commits",
    "commits refused",
    "commits in doubt",
    "commits cut off",
    "losses of power",
    "openings that failed",
)


@pytest.fixture
def files() -> Iterator[FaultyFiles]:
    """The files of a spool that says nothing and takes its room back at once after the disk was full."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        mock.patch("forebay.spool.reserve.TRY_EVERY_S", 0),
        mock.patch("forebay.spool.reserve.RESERVE_BYTES", 4096),
        faulty_files(Policy()) as files,
    ):
        yield files
    structlog.reset_defaults()


def test_answered_commits_are_there_and_refused_ones_are_not_after_faults_of_the_disk_and_crashes(
    files: FaultyFiles,
) -> None:
    counts: collections.Counter[str] = collections.Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        with make_folder() as folder:
            try:
                SpoolHistory(seed, Path(folder), files, counts).run()
            except Exception as error:
                error.add_note(f"FOREBAY_TEST_HISTORIES=1 FOREBAY_TEST_SEED={seed}")
                raise
    if HISTORIES >= ENOUGH:
        assert all(counts[what] for what in MUST_HAPPEN), counts
