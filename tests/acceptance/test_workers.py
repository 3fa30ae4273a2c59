"""Several workers are one server: they share the port, stand in for each other, and lose nothing when one falls."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from forebay.sinks.local import LocalSink
from forebay.sinks.port import Query
from testbed.servers.fixtures import OpenSearchAddress
from testbed.servers.forebay import ForebayServer, ForebayStartError, is_running, wait_ended
from testbed.servers.hasty_forebay import HastyForebay
from testbed.servers.observing import (
    WAIT_S,
    count_events,
    log_lines,
    read_health,
    read_metrics,
    spools,
    start_all,
    start_in_vain,
    wait_well,
    wait_worker,
)
from testbed.servers.ports import HOST
from testbed.traffic.client import Client
from testbed.traffic.events import expected_info, make_events
from testbed.traffic.exactly_once import assert_exactly_once, send_and_interfere
from testbed.traffic.index import Index
from testbed.traffic.spread import send_to_each

TWO = {"FOREBAY_WORKERS": "2", "FOREBAY_METRICS_OPEN": "true"}
QUICK = {"FOREBAY_BULK_INTERVAL_S": "0.5", "FOREBAY_RETRY_DELAY_S_MAX": "2", "FOREBAY_RETRY_INTERVAL_S": "5"}


async def assert_in_embedded_store(client: Client, folder: Path) -> None:
    found = await LocalSink(folder / "spool-events.db", "local").search(Query({}, limit=len(client.accepted) + 1))
    assert len(found) == len(client.accepted)
    assert {document["log_id"]: document["event_info"] for document in map(json.loads, map(bytes, found))} == {
        log_id: expected_info(event) for log_id, event in client.accepted.items()
    }


def is_listening(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=10).close()
    except OSError:
        return False
    return True


async def test_two_workers_serve_one_port_and_whichever_is_asked_speaks_for_both(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {**TWO, **QUICK}) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await send_to_each(server, client, workers=2, events=4_000)
        samples = read_metrics(server)
        accepted = [samples[f'forebay_events_accepted_total{{worker="{number}"}}'] for number in (1, 2)]
        assert sum(accepted) == len(client.accepted)
        assert (samples["forebay_workers"], samples["forebay_workers_up"]) == (2, 2)
        assert samples['process_start_time_seconds{worker="1"}'] > 0
        assert spools(tmp_path) == ["spool.2.db", "spool.db"]
        assert len(log_lines(server, "serving")) == 1
        assert server.stop() == 0
    await assert_in_embedded_store(client, tmp_path)


async def test_a_worker_killed_in_the_middle_of_the_load_is_started_again_and_loses_and_doubles_nothing(
    opensearch: OpenSearchAddress, tmp_path: Path
) -> None:
    settings = {**TWO, **QUICK, "OPEN_SEARCH_DNS": opensearch.url, "SERVER_ENVIRONMENT": "workers"}
    with ForebayServer(tmp_path, settings) as server:
        start_all(server)
        supervisor = server.pid
        killed: list[tuple[int, int]] = []
        client = Client(server.url, server.token())

        def kill_one() -> None:
            number = 1 + len(killed) % 2
            killed.append((number, server.worker_pids[number]))
            os.kill(killed[-1][1], signal.SIGKILL)

        await send_and_interfere(client, make_events(0, 40_000), [kill_one] * 2)
        assert client.resent > 0, "no request was interrupted: the kills came at the wrong moment"
        for number, pid in killed:
            assert is_running(await wait_worker(server, number, pid))
        await assert_exactly_once(client, Index(opensearch.url, "workers"))
        await wait_well(server)
        assert server.pid == supervisor
        fallen = log_lines(server, "worker_fell")
        assert [(line["worker"], line["cause"]) for line in fallen] == [(1, "signal SIGKILL"), (2, "signal SIGKILL")]
        assert server.stop() == 0


async def test_two_workers_told_to_stop_in_the_middle_of_the_load_lose_nothing_even_from_memory(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {"FOREBAY_ACK": "memory", **TWO, **QUICK}) as server:
        start_all(server)
        client = Client(server.url, server.token())

        def stop_and_start() -> None:
            assert server.stop() == 0
            start_all(server)

        await send_and_interfere(client, make_events(0, 20_000), [stop_and_start] * 2)
        assert server.stop() == 0
    await assert_in_embedded_store(client, tmp_path)


def test_a_folder_for_temporary_files_whose_path_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    temporary = tmp_path / ("long" * 25)
    temporary.mkdir()
    with ForebayServer(tmp_path, {"TMPDIR": str(temporary), **TWO}) as server:
        with pytest.raises(ForebayStartError) as ended:
            server.start()
        assert ended.value.exit_code == 2
        assert "a folder with a shorter path" in server.log
        assert "TMPDIR" in server.log
    assert list(temporary.iterdir()) == []


async def test_workers_whose_supervisor_was_killed_end_in_order_and_leave_their_spools_free(
    tmp_path: Path, short_folder: Path
) -> None:
    temporary = short_folder
    with ForebayServer(tmp_path, {"FOREBAY_ACK": "memory", "TMPDIR": str(temporary), **TWO}) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await client.send(make_events(0, 2_000), batch=50, connections=8)
        workers = server.worker_pids
        assert len(workers) == 2
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_ended, workers.values())
        server.kill()
        assert len(log_lines(server, "supervisor_gone")) == 2
        assert list(temporary.iterdir()) == []
        await assert_in_embedded_store(client, tmp_path)
        start_all(server)
        assert server.stop() == 0
        assert list(temporary.iterdir()) == []


async def test_a_worker_that_does_not_answer_is_named_while_the_others_take_events(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {**TWO, **QUICK}) as server:
        start_all(server)
        stopped = server.worker_pids[2]
        os.kill(stopped, signal.SIGSTOP)
        try:
            health = await asyncio.to_thread(read_health, server)
            assert health == {"status": "degraded", "causes": ["worker 2 does not answer"]}
            samples = await asyncio.to_thread(read_metrics, server)
            assert (samples["forebay_workers"], samples["forebay_workers_up"]) == (2, 1)
            client = Client(server.url, server.token())
            await client.send(make_events(0, 100), batch=10, connections=2)
        finally:
            os.kill(stopped, signal.SIGCONT)
        await wait_well(server)
        assert server.stop() == 0


async def test_a_worker_that_hangs_is_ended_and_started_again_and_nothing_that_was_answered_is_lost(
    tmp_path: Path,
) -> None:
    with HastyForebay(tmp_path, {**TWO, **QUICK, "FOREBAY_BULK_INTERVAL_S": "60"}) as server:
        start_all(server)
        client = Client(server.url, server.token())
        await send_to_each(server, client, workers=2, events=1_000)
        hanging = server.worker_pids[2]
        os.kill(hanging, signal.SIGSTOP)
        await wait_worker(server, 2, hanging)
        assert not is_running(hanging)
        await wait_well(server)
        assert [(line["worker"], line["pid"]) for line in log_lines(server, "worker_hangs")] == [(2, hanging)]
        assert [line["cause"] for line in log_lines(server, "worker_fell")] == ["signal SIGKILL"]
        assert server.stop() == 0
    await assert_in_embedded_store(client, tmp_path)


async def test_workers_are_not_ended_because_the_whole_server_was_paused(tmp_path: Path) -> None:
    with HastyForebay(tmp_path, {**TWO, **QUICK}) as server:
        start_all(server)
        processes = [server.pid, *server.worker_pids.values()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        # Far longer than a worker may be silent.
        await asyncio.sleep(4)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        await wait_well(server)
        assert [server.pid, *server.worker_pids.values()] == processes
        assert log_lines(server, "worker_hangs") == []
        assert server.stop() == 0


async def test_a_worker_that_was_told_to_end_is_started_again_too(tmp_path: Path) -> None:
    with ForebayServer(tmp_path, {**TWO, **QUICK}) as server:
        start_all(server)
        pid = server.worker_pids[1]
        os.kill(pid, signal.SIGTERM)
        await wait_worker(server, 1, pid)
        await wait_well(server)
        assert [line["cause"] for line in log_lines(server, "worker_fell")] == ["exit code 0"]
        assert server.stop() == 0


def test_a_spool_that_belongs_to_somebody_else_keeps_the_whole_server_from_starting(tmp_path: Path) -> None:
    alone = {"DATABASE_URL": f"sqlite://{tmp_path / 'spool.2.db'}"}
    (tmp_path / "owner").mkdir()
    with ForebayServer(tmp_path / "owner", alone) as owner, ForebayServer(tmp_path, TWO) as server:
        owner.start()
        with pytest.raises(ForebayStartError) as refused:
            start_in_vain(server)
        assert refused.value.exit_code == 1
        (line,) = log_lines(server, "worker_refused")
        assert line["worker"] == 2
        assert f"spool.2.db belongs to another process (pid {owner.pid})" in line["cause"]
        assert owner.stop() == 0


async def test_a_second_signal_ends_all_workers_at_once(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        slow = {
            "OPEN_SEARCH_DNS": f"http://{HOST}:{silent.getsockname()[1]}",
            "FOREBAY_BULK_TIMEOUT_S": "600",
            "FOREBAY_SHUTDOWN_TIMEOUT_S": "600",
        }
        with ForebayServer(tmp_path, {**TWO, **QUICK, **slow}) as server:
            start_all(server)
            workers = server.worker_pids
            client = Client(server.url, server.token())
            await client.send(make_events(0, 2_000), batch=10, connections=32)
            os.kill(server.pid, signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                while is_listening(server.port):
                    await asyncio.sleep(0.02)
            assert [is_running(pid) for pid in workers.values()] == [True, True]
            assert await asyncio.to_thread(server.stop) == 128 + signal.SIGTERM
            wait_ended(workers.values())
        assert sum(count_events(tmp_path / name) for name in spools(tmp_path)) == 2_000
