"""All events from one private address are told: a proxy makes its clients look like one."""

from __future__ import annotations

import pytest

from forebay.admin.metrics import render
from forebay.doctor import clients
from forebay.doctor.finding import Level
from forebay.settings import Settings
from forebay.telemetry.counters import Counters
from testbed.servers.ports import free_ports
from unit.admin.test_metrics import alone
from unit.doctor.contexts import make_context


def judge(addresses: list[str]) -> list[tuple[Level, str]]:
    metrics = render(alone(Counters(clients=addresses)))
    return [(finding.level, finding.text.partition(",")[0]) for finding in clients.judge(metrics)]


def test_one_private_address_is_told() -> None:
    assert judge(["10.0.0.1"]) == [(Level.WARN, "all events came from 10.0.0.1")]
    assert judge(["fd00::1"]) == [(Level.WARN, "all events came from fd00::1")]


@pytest.mark.parametrize("addresses", [[], ["8.8.8.8"], ["10.0.0.1", "10.0.0.2"]])
def test_other_addresses_are_well(addresses: list[str]) -> None:
    assert judge(addresses) == []


@pytest.mark.parametrize("environment", ["local", "production"])
def test_a_server_that_does_not_answer_is_told_elsewhere(environment: str) -> None:
    settings = Settings(
        SERVER_PORT=free_ports(1)[0], SERVER_ENVIRONMENT=environment, JWT_SECRET="x" * 40, _env_file=None
    )
    assert list(clients.check(make_context(settings))) == []
