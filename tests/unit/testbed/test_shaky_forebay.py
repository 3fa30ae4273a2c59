"""The disk of a server fails as long, or as often, as a test says."""

from pathlib import Path

from testbed.servers.faulty_vfs import Operation
from testbed.servers.shaky_forebay import FaultsOfFile, ShakyForebay


def fails(policy: FaultsOfFile, operation: Operation, path: str) -> bool:
    return policy.decide(operation, path, 0, 0) is not None


def test_a_step_fails_until_the_disk_is_healed(tmp_path: Path) -> None:
    with ShakyForebay(tmp_path) as server:
        policy = FaultsOfFile(tmp_path / "faults")
        server.fail("sync log")
        assert [fails(policy, Operation.SYNC, "spool.db-wal") for _ in range(2)] == [True, True]
        assert not fails(policy, Operation.SYNC, "spool.db")
        assert not fails(policy, Operation.WRITE, "spool.db-wal")
        server.heal()
        assert not fails(policy, Operation.SYNC, "spool.db-wal")


def test_a_step_that_fails_once_does_so_each_time_that_it_is_asked_for(tmp_path: Path) -> None:
    with ShakyForebay(tmp_path) as server:
        policy = FaultsOfFile(tmp_path / "faults")
        for _ in range(2):
            server.fail("sync log once")
            assert [fails(policy, Operation.SYNC, "spool.db-wal") for _ in range(2)] == [True, False]
