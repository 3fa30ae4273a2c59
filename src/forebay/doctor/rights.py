"""Whether the user may write events, as far as that can be known without writing any."""

from __future__ import annotations

from typing import Any

import msgspec

from forebay.errors import SinkUnreachable
from forebay.findings import Finding, Level
from forebay.sinks.opensearch.advice import RIGHTS
from forebay.sinks.opensearch.answers import HTTP_OK
from forebay.sinks.opensearch.client import OpenSearchClient

WHAT = "rights"
UNKNOWN = "cannot be known without writing an event"
SHOW = "see whether events arrive: `/health/ready` and the log say why where they do not"


async def look_at_rights(client: OpenSearchClient, index: str) -> Finding:
    """Ask the security plugin who we are, and whether we could make a document; nothing is written."""
    try:
        who = await client.request("GET", "/_plugins/_security/authinfo")
        if b"no handler found" in who.body:
            return Finding(Level.OK, WHAT, "no security plugin: whoever reaches OpenSearch may write")
        if who.status != HTTP_OK:
            return Finding(Level.WARN, WHAT, f"{UNKNOWN} (status {who.status} of the security plugin)", SHOW)
        user = _describe(msgspec.json.decode(who.body))
        # From 3.2 on the plugin says what it would allow and carries nothing out (opensearch-project/security#5496).
        # One that does not know the parameter refuses the request, and `require_alias` would refuse the document:
        # an events index is no alias.
        asked = await client.request(
            "POST",
            f"/{index}/_create/forebay-doctor?require_alias=true&perform_permission_check=true",
            b"{}",
            "application/json",
        )
        answer = msgspec.json.decode(asked.body)
    except (SinkUnreachable, ValueError, RecursionError) as error:
        return Finding(Level.WARN, WHAT, f"{UNKNOWN}: {error}", SHOW)
    return judge_rights(user, index, answer)


def judge_rights(user: str, index: str, answer: Any) -> Finding:
    """Say what the plugin's answer means; one that does not know the question leaves it open."""
    if not isinstance(answer, dict) or "accessAllowed" not in answer:
        return Finding(Level.WARN, WHAT, f"{user}; whether it may write into {index} {UNKNOWN}", SHOW)
    if answer["accessAllowed"]:
        return Finding(Level.OK, WHAT, f"{user} may write into {index}")
    missing = ", ".join(map(str, answer.get("missingPrivileges") or ["not said which"]))
    return Finding(Level.FAIL, WHAT, f"{user} may not write into {index}; missing: {missing}", RIGHTS)


def _describe(info: Any) -> str:
    roles = ", ".join(map(str, info.get("roles") or ())) if isinstance(info, dict) else ""
    name = info.get("user_name") if isinstance(info, dict) else None
    return f"user {name or 'unknown'} with the roles {roles or 'none'}"
