"""Checks whether all events come from one private address: then a proxy stands between, whose clients look like one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

from forebay.doctor.context import Context
from forebay.doctor.finding import Finding, warn
from forebay.doctor.server import ServerSilent, ask

_SOLE = re.compile(rb'^forebay_sole_client\{address="([^"]+)"\}', re.MULTILINE)
LOCAL = "local"


def check(context: Context) -> Iterator[Finding]:
    """Ask the server for the address of its clients. On the machine of a developer they all have the same."""
    if context.settings.server_environment == LOCAL:
        return
    try:
        reply = ask(context.settings, "/metrics")
    except ServerSilent:
        return  # another check says so
    if reply.status == HTTPStatus.OK:
        yield from judge(reply.body)


def judge(metrics: bytes) -> Iterator[Finding]:
    """Judge the server's metrics."""
    found = _SOLE.search(metrics)
    if found is not None:
        yield warn(
            f"all events came from {found[1].decode()}, a private address: they are limited and stored by it",
            "if that is a proxy, name it in FOREBAY_TRUSTED_PROXIES, and let it send X-Forwarded-For",
        )
