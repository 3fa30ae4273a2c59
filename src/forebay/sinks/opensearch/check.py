"""Checks each OpenSearch host, and our right to write; nothing is written for that."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from http import HTTPStatus

from msgspec import Struct, field

from forebay.errors import OperatorNeeded, SinkUnreachable
from forebay.setting_values import SinkHost
from forebay.sinks.opensearch.access import Access
from forebay.sinks.opensearch.advice import CREDENTIALS, RIGHTS, advise_connection
from forebay.sinks.opensearch.client import OpenSearchClient
from forebay.sinks.opensearch.excerpt import excerpt
from forebay.sinks.port import CheckResult, SinkCheck

TIMEOUT_S = 5

FLAT_OBJECT_SINCE = (2, 7)
"""The template's `param` needs `flat_object`
(https://docs.opensearch.org/latest/mappings/supported-field-types/flat-object/)."""

HANGS_ON_ZSTD = (2, 19, 0)
"""Asked for an answer in zstd it never gives one (opensearch-project/OpenSearch#17339)."""

UNKNOWN = "cannot be known without writing an event"
SEE_EVENTS = "see whether events arrive: if not, `/health/ready` and the log give the reason"


class _Version(Struct):
    number: str
    distribution: str = ""


class _Root(Struct):
    version: _Version


class _User(Struct):
    user_name: str | None = None
    roles: list[str] = []


class _Permission(Struct):
    is_allowed: bool | None = field(name="accessAllowed", default=None)
    missing: list[str] = field(name="missingPrivileges", default_factory=list)


async def check_access(access: Access, index: str) -> SinkCheck:
    """Check each host, and through those that are usable our right to write into an index."""
    found = await asyncio.gather(*(_check_host(access, host) for host in access.hosts))
    # One that hangs would hang again.
    usable = tuple(host for host, result in zip(access.hosts, found, strict=True) if result.is_usable)
    return SinkCheck(found, await _check_rights(access, usable, index) if usable else None)


async def _check_host(access: Access, host: SinkHost) -> CheckResult:
    subject = f"opensearch {host.url}"
    client = OpenSearchClient(replace(access, hosts=(host,)), TIMEOUT_S, connections_max=1)
    try:
        answer = await client.request("GET", "/")
    except SinkUnreachable as error:
        advice = error.advice if isinstance(error, OperatorNeeded) else advise_connection(str(error))
        return CheckResult(subject, str(error).removeprefix(f"{host.url}: "), advice, is_usable=False)
    finally:
        await client.close()
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return CheckResult(subject, f"does not know us (status {answer.status})", CREDENTIALS, is_usable=False)
    if answer.status == HTTPStatus.FORBIDDEN:
        text = f"is there, and does not let us ask for its version (status {answer.status})"
        return CheckResult(subject, text, "give our user cluster:monitor/main; events need it not")
    try:
        if answer.status == HTTPStatus.OK:
            return _check_version(subject, answer.decode(_Root).version)
    except SinkUnreachable:
        pass  # it is something else than OpenSearch, as with another status
    text = f"answers with status {answer.status} and not as OpenSearch does: {excerpt(answer.body)}"
    return CheckResult(subject, text, advise_connection(text), is_usable=False)


def _check_version(subject: str, version: _Version) -> CheckResult:
    number = version.number
    if version.distribution != "opensearch":
        text = f"not OpenSearch, version {number} of another"
        return CheckResult(subject, text, "correct OPEN_SEARCH_DNS", is_usable=False)
    parts = tuple(int(part) for part in re.findall(r"\d+", number)[:3])
    if parts < FLAT_OBJECT_SINCE:
        text = f"OpenSearch {number} has no flat_object"
        return CheckResult(subject, text, "use OpenSearch 2.7 or later", is_usable=False)
    if parts == HANGS_ON_ZSTD:
        text = f"OpenSearch {number} hangs when it is asked for zstd; Forebay never asks for it, others may"
        return CheckResult(subject, text, "use a later version")
    return CheckResult(subject, f"OpenSearch {number}")


async def _check_rights(access: Access, hosts: tuple[SinkHost, ...], index: str) -> CheckResult:
    client = OpenSearchClient(replace(access, hosts=hosts), TIMEOUT_S, connections_max=1)
    try:
        return await _ask_security_plugin(client, index)
    except SinkUnreachable as error:
        return CheckResult("rights", f"{UNKNOWN}: {error}", SEE_EVENTS)
    finally:
        await client.close()


async def _ask_security_plugin(client: OpenSearchClient, index: str) -> CheckResult:
    who = await client.request("GET", "/_plugins/_security/authinfo")
    if b"no handler found" in who.body:
        return CheckResult("rights", "no security plugin: whoever reaches OpenSearch may write")
    if who.status != HTTPStatus.OK:
        return CheckResult("rights", f"{UNKNOWN} (status {who.status} of the security plugin)", SEE_EVENTS)
    user = who.decode(_User)
    name = f"user {user.user_name or 'unknown'} with the roles {', '.join(user.roles) or 'none'}"
    # From 3.2 on the plugin only tells whether it would allow the request (opensearch-project/security#5496).
    # One that does not know the parameter refuses the request, and `require_alias` would refuse the document:
    # an events index is no alias.
    path = f"/{index}/_create/forebay-doctor?require_alias=true&perform_permission_check=true"
    permission = (await client.request("POST", path, b"{}", "application/json")).decode(_Permission)
    if permission.is_allowed is None:
        return CheckResult("rights", f"{name}; whether it may write into {index} {UNKNOWN}", SEE_EVENTS)
    if permission.is_allowed:
        return CheckResult("rights", f"{name} may write into {index}")
    missing = ", ".join(permission.missing or ["not said which"])
    return CheckResult("rights", f"{name} may not write into {index}; missing: {missing}", RIGHTS, is_usable=False)
