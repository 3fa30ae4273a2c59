"""The supervisor's view of a worker, over the real socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forebay.admin.peers import Peers
from forebay.workers.child import PINGS_UNANSWERED_MAX, Child
from forebay.workers.link import LeftSpools, Serving, SupervisorLink, make_link
from unit.pipeline.fakes import until

SERVING = Serving("the embedded store")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = make_link()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def child(ends: tuple[socket.socket, socket.socket]) -> Child:
    return Child(os.getpid(), ends[0])


@pytest.fixture
def link(ends: tuple[socket.socket, socket.socket]) -> SupervisorLink:
    return SupervisorLink(ends[1])


def test_a_worker_that_is_still_starting_is_not_pinged(child: Child) -> None:
    for _ in range(PINGS_UNANSWERED_MAX + 1):
        child.ping(())
    assert not child.hangs


def test_a_worker_that_answers_no_ping_hangs_after_six_of_them(child: Child) -> None:
    child.is_serving = True
    for _ in range(PINGS_UNANSWERED_MAX):
        assert not child.hangs
        child.ping(())
    assert child.hangs


def test_one_answer_stands_for_all_pings_before_it(child: Child, link: SupervisorLink) -> None:
    child.is_serving = True
    for _ in range(3 * PINGS_UNANSWERED_MAX):
        child.ping(())
        link.report(SERVING)
        assert list(child.read_reports()) == [SERVING]
    assert not child.hangs


async def test_the_event_loop_of_a_worker_answers_a_ping_and_notes_its_content(
    child: Child, link: SupervisorLink
) -> None:
    peers = Peers()
    link.serve(SERVING, peers, on_gone=lambda: None)
    assert list(child.read_reports()) == [SERVING]
    child.is_serving = True
    child.ping(("spool.3.db is damaged",))
    await until(lambda: peers.left_spools)
    assert peers.left_spools == ("spool.3.db is damaged",)
    assert list(child.read_reports()) == [SERVING]


async def test_a_worker_hears_that_the_supervisor_is_gone_also_if_it_had_not_read_everything(
    ends: tuple[socket.socket, socket.socket], link: SupervisorLink
) -> None:
    gone = asyncio.Event()
    link.serve(SERVING, Peers(), on_gone=gone.set)
    ends[0].close()
    await asyncio.wait_for(gone.wait(), 10)
    assert not link.is_supervised


def test_last_words_are_heard_after_the_end(ends: tuple[socket.socket, socket.socket], child: Child) -> None:
    SupervisorLink(ends[1]).report(LeftSpools({"spool.3.db": "damaged"}))
    ends[1].close()
    assert list(child.read_reports()) == [LeftSpools({"spool.3.db": "damaged"})]


PARENT = """
import os, signal, socket, sys, time
from forebay.workers.child import SIGNALS, fork
from forebay.workers.link import Serving, SupervisorLink

for number in SIGNALS:
    signal.signal(number, lambda *_: None)

def work(link):
    SupervisorLink(link).report(Serving(f"{os.getpgid(0) == os.getpid()} {open('/proc/self/comm').read().strip()}"))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handlers = {signal.getsignal(number) for number in SIGNALS}
    if blocked or handlers != {signal.SIG_DFL}:
        return 4
    if sys.argv[1] == "raise":
        raise ValueError("nobody expected this")
    return 3

try:
    child = fork("forebay-7", work, lambda: None)
    while (end := child.find_end()) is None:
        time.sleep(0.01)
    print(end.exit_code, [report.events_go_to for report in child.read_reports()])
finally:
    print("the end of the supervisor")
"""


@pytest.mark.parametrize(("deed", "exit_code"), [("return", 3), ("raise", 1)])
def test_a_child_has_a_group_and_a_name_of_its_own_and_ends_with_its_exit_code_and_no_clean_up_of_the_supervisors(
    deed: str, exit_code: int
) -> None:
    done = subprocess.run([sys.executable, "-c", PARENT, deed], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-2:] == [f"{exit_code} ['True forebay-7']", "the end of the supervisor"]
    assert done.stdout.count("the end of the supervisor") == 1
