"""A look at OpenSearch by somebody who wants to know why events do not arrive: it asks, and changes nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from forebay.clock import now_ms
from forebay.doctor import cluster, template
from forebay.doctor.rights import look_at_rights
from forebay.doctor.uniqueness import judge_uniqueness
from forebay.errors import OperatorNeeded, SinkUnreachable
from forebay.findings import Finding, Level
from forebay.settings import Settings, SinkHost
from forebay.sinks.months import index_of, judge_months
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.opensearch.advice import CREDENTIALS
from forebay.sinks.opensearch.answers import HTTP_FORBIDDEN, HTTP_NOT_FOUND, HTTP_OK, HTTP_UNAUTHORIZED
from forebay.sinks.opensearch.client import Answer, OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt

TIMEOUT_S = 5
CONNECTIONS_MAX = 4

ANSWERS = {
    "health": "/_cluster/health",
    "settings": "/_cluster/settings?include_defaults=true&flat_settings=true&filter_path=*.cluster*,*.action*",
    "allocation": "/_cat/allocation?format=json&bytes=b&h=node,disk.percent,disk.avail",
    "nodes": "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes",
    "templates": "/_index_template",
    "months": "/_cat/indices/events_{environment}_*?format=json&h=index",
    "blocks": "/events_{environment}_*/_settings/index.blocks*?flat_settings=true&expand_wildcards=open",
    "mapping": "/{index}/_mapping",
    "places": "/_resolve/index/events_{environment}_*",
}
"""What is asked, by the name that a judgement knows it under."""

ADVICE = (
    (("wrong_version_number", "record_layer_failure", "packet_length"), "it speaks no TLS: http:// in OPEN_SEARCH_DNS"),
    (("plain http request", "server disconnected"), "it may speak TLS: https:// in OPEN_SEARCH_DNS"),
    (("name or service", "name resolution", "getaddrinfo"), "correct the name in OPEN_SEARCH_DNS, or the DNS"),
    (
        ("no answer in time", "no connection in time"),
        "see whether it is overloaded, or a firewall drops what is sent to it",
    ),
    (("connect call failed", "refused"), "start OpenSearch, or correct the address in OPEN_SEARCH_DNS"),
)
"""What to change for an error of a connection, by words of those who report it (OpenSSL, glibc, aiohttp, nginx)."""


class Clock(NamedTuple):
    """What a node's clock showed, in milliseconds since 1970, between two looks at our own."""

    name: str
    shown_ms: int
    asked_at_ms: int
    answered_at_ms: int


class _Refused(Exception):
    """OpenSearch answered and did not say what it was asked."""


async def check_up(settings: Settings) -> list[Finding]:
    """Look at every host, and then at the cluster through whichever answers."""
    hosts = settings.open_search_dns
    found = await asyncio.gather(*(_look_at_host(settings, host) for host in hosts))
    # One that hangs would hang again for every question.
    well = tuple(host for host, finding in zip(hosts, found, strict=True) if finding.level is not Level.FAIL)
    if not well:
        return [*found, Finding(Level.FAIL, "opensearch", "no address answers as it should, so nothing else was asked")]
    client = _make_client(settings, well)
    try:
        names = {"environment": settings.server_environment, "index": _this_month(settings)}
        questions = (_ask(client, path.format(**names)) for path in ANSWERS.values())
        right, *given = await asyncio.gather(look_at_rights(client, _this_month(settings)), *questions)
    finally:
        await client.close()
    answers = dict(zip(ANSWERS, given, strict=True))
    judged = (_judge(judgement, answers) for judgement in _list_judgements(settings))
    return [*found, *itertools.chain.from_iterable(judged), right]


async def read_clocks(settings: Settings) -> list[Clock]:
    """Return what the clocks of the nodes show: OpenSearch's answers have no Date.

    Raises:
        SinkUnreachable: no node answers.
    """
    client = _make_client(settings, settings.open_search_dns)
    try:
        asked_at_ms = now_ms()
        found = await _ask(client, "/_nodes/stats/os?filter_path=nodes.*.name,nodes.*.timestamp")
        answered_at_ms = now_ms()
    finally:
        await client.close()
    if isinstance(found, _Refused):
        raise SinkUnreachable(str(found))
    nodes = found["nodes"].values()
    return [Clock(str(node["name"]), int(node["timestamp"]), asked_at_ms, answered_at_ms) for node in nodes]


def _make_client(settings: Settings, hosts: tuple[SinkHost, ...]) -> OpenSearchClient:
    return OpenSearchClient(replace(make_access(settings), hosts=hosts), TIMEOUT_S, CONNECTIONS_MAX)


async def _look_at_host(settings: Settings, host: SinkHost) -> Finding:
    what = f"opensearch {host.url}"
    client = _make_client(settings, (host,))
    try:
        answer = await client.request("GET", "/")
    except OperatorNeeded as error:
        return Finding(Level.FAIL, what, str(error).removeprefix(f"{host.url}: "), error.advice)
    except SinkUnreachable as error:
        return Finding(Level.FAIL, what, str(error).removeprefix(f"{host.url}: "), advise(str(error)))
    finally:
        await client.close()
    if answer.status == HTTP_UNAUTHORIZED:
        return Finding(Level.FAIL, what, f"does not know us (status {answer.status})", CREDENTIALS)
    if answer.status == HTTP_FORBIDDEN:
        text = "is there, and does not let us ask for its version (status 403)"
        return Finding(Level.WARN, what, text, "give our user cluster:monitor/main; events need it not")
    try:
        return cluster.judge_version(what, _read(answer))
    except (_Refused, LookupError, TypeError, ValueError, AttributeError):
        text = f"answers with status {answer.status} and not as OpenSearch does: {excerpt(answer.body)}"
        return Finding(Level.FAIL, what, text, advise(text))


def advise(text: str) -> str:
    """Return what to change for an error of a connection, in the words of the ones who report it."""
    lower = text.lower()
    advice = (advice for parts, advice in ADVICE if any(part in lower for part in parts))
    return next(advice, "correct OPEN_SEARCH_DNS, or see the log of OpenSearch and of what stands before it")


async def _ask(client: OpenSearchClient, path: str) -> Any:
    """Return a decoded answer, or why there is none."""
    try:
        answer = await client.request("GET", path)
        # A month that nobody has sent an event for.
        if answer.status == HTTP_NOT_FOUND and b"index_not_found_exception" in answer.body:
            return {}
        return _read(answer)
    except (SinkUnreachable, _Refused) as error:
        return _Refused(str(error))


def _read(answer: Answer) -> Any:
    if answer.status != HTTP_OK:
        raise _Refused(f"status {answer.status}: {excerpt(answer.body)}")
    try:
        return msgspec.json.decode(answer.body)
    except (ValueError, RecursionError) as error:
        raise _Refused(f"the answer is not what OpenSearch sends: {error}") from error


class _Judgement(NamedTuple):
    what: str
    needed: tuple[str, ...]
    judge: Callable[..., Iterable[Finding]]


def _list_judgements(settings: Settings) -> Iterator[_Judgement]:
    index, environment = _this_month(settings), settings.server_environment
    months = (_last_month(settings), index)
    judge_bytes = partial(
        cluster.judge_bulk_bytes, bulk_bytes=settings.bulk_bytes_max, body_bytes=settings.body_bytes_max
    )
    is_put = settings.index_template
    yield _Judgement("cluster", ("health",), cluster.judge_health)
    yield _Judgement("disks", ("allocation", "settings"), cluster.judge_disks)
    yield _Judgement("cluster blocks", ("settings",), partial(cluster.judge_cluster_settings, index=index))
    yield _Judgement("months", ("months",), partial(_judge_months, settings))
    yield _Judgement("index blocks", ("blocks",), partial(cluster.judge_blocks, months=months))
    yield _Judgement("shards", ("health", "settings"), cluster.judge_shards)
    yield _Judgement("template", ("templates",), partial(template.judge_template, index=index, is_put=is_put))
    yield _Judgement("mapping", ("mapping",), partial(template.judge_mapping, index=index))
    yield _Judgement("ids", ("places", "templates"), partial(judge_uniqueness, environment=environment, index=index))
    yield _Judgement("bulk bytes", ("nodes",), judge_bytes)


def _judge_months(settings: Settings, what: str, rows: Any) -> Iterator[Finding]:
    names = [str(row["index"]) for row in rows]
    yield judge_months(what, names, settings.server_environment, settings.oldest_month)


def _judge(judgement: _Judgement, answers: Mapping[str, Any]) -> list[Finding]:
    what, needed, judge = judgement
    parts = [answers[name] for name in needed]
    for part in parts:
        if isinstance(part, _Refused):
            return [Finding(Level.WARN, what, f"cannot be known: {part}", "let our user monitor the cluster")]
    try:
        return list(judge(what, *parts))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = f"cannot be known: the answer is not what OpenSearch sends ({type(error).__name__})"
        return [Finding(Level.WARN, what, text, "see what stands between us and OpenSearch")]


def _this_month(settings: Settings) -> str:
    return index_of(settings.server_environment, datetime.now(UTC), 0)


def _last_month(settings: Settings) -> str:
    return index_of(settings.server_environment, datetime.now(UTC), -1)
