"""The ways in which a `FaultyProxy` misbehaves."""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Mapping

from aiohttp import web

from testbed.servers.faulty_proxy import Answer, Behaviour, ProxiedRequest, pass_on

PAGE = b"<html><head><title>Please sign in</title></head><body><h1>Captive portal</h1></body></html>\n"
UNASSIGNED = {"type": "unavailable_shards_exception", "reason": "primary shard is not active"}
BROKEN_PIPELINE = {"type": "fail_processor_exception", "reason": "broken in the pipeline"}
"""The words of OpenSearch, with 500, if an ingest pipeline fails. A node as the tests start it has no processors."""

REJECTED = {"type": "rejected_execution_exception", "reason": "rejected execution of coordinating operation"}


async def reset_before(request: ProxiedRequest) -> web.StreamResponse:
    """Cut the connection once the request has arrived; OpenSearch never gets it."""
    request.interfere()
    return request.reset()


async def reset_after(request: ProxiedRequest) -> web.StreamResponse:
    """Cut the connection once OpenSearch has done the request."""
    request.interfere()
    await request.forward()
    return request.reset()


async def reset_in_answer(request: ProxiedRequest) -> web.StreamResponse:
    """Cut the connection in the middle of OpenSearch's answer."""
    answer = await request.forward()
    request.interfere()
    return await request.answer_half(answer)


async def hang_after(request: ProxiedRequest) -> web.StreamResponse:
    """Let OpenSearch do the request, and never answer."""
    request.interfere()
    await request.forward()
    await request.wait_switched()
    return request.reset()


def show_page(status: int) -> Behaviour:
    """Make a behaviour that answers every request with this status and a page that is not OpenSearch's."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        request.interfere()
        return request.answer(Answer(status, PAGE, "text/html"))

    return behave


async def cut_json(request: ProxiedRequest) -> web.StreamResponse:
    """Answer with the first half of the answer of OpenSearch, as if that were all."""
    status, body, content_type = await request.forward()
    request.interfere()
    return request.answer(Answer(status, body[: len(body) // 2], content_type))


async def drop_items(request: ProxiedRequest) -> web.StreamResponse:
    """Leave the last item out of the answer to a bulk."""
    if not request.is_bulk:
        return await pass_on(request)
    status, body, content_type = await request.forward()
    request.interfere()
    answer = json.loads(body)
    answer["items"] = answer.get("items", [])[:-1]
    return request.answer(Answer(status, json.dumps(answer).encode(), content_type))


def refuse_all(status: int) -> Behaviour:
    """Make a behaviour that answers every request with this status and OpenSearch's words for too much work."""
    body = json.dumps({"error": REJECTED, "status": status}).encode()

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        request.interfere()
        return request.answer(Answer(status, body))

    return behave


def refuse_items(share: float) -> Behaviour:
    """Make a behaviour that answers 429 to this share of a bulk's items, other ones each time, and keeps them back."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        kept_back = [random.random() < share for _ in _entries(request)]
        return await _keep_back(request, kept_back, 429, REJECTED)

    return behave


def refuse_items_with(is_refused: Callable[[bytes], bool], status: int, error: Mapping[str, str]) -> Behaviour:
    """Make a behaviour that answers this status and error to certain items of a bulk, and keeps them back."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        return await _keep_back(request, [is_refused(entry) for entry in _entries(request)], status, error)

    return behave


def fail_pipeline() -> Behaviour:
    """Make a behaviour that refuses every item of a bulk as an OpenSearch whose ingest pipeline fails does."""
    return refuse_items_with(lambda _: True, 500, BROKEN_PIPELINE)


def refuse_by_turns(*refusals: tuple[int, Mapping[str, str]]) -> Behaviour:
    """Make a behaviour that refuses every item of a bulk, with these statuses and errors by turns."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        if not request.is_bulk:
            return await pass_on(request)
        request.interfere()
        turns = zip(_entries(request), itertools.cycle(refusals), strict=False)
        items = [{"create": {"status": status, "error": error}} for _, (status, error) in turns]
        return request.answer(Answer(200, json.dumps({"errors": True, "items": items}).encode()))

    return behave


def fill_up(room: int, error_type: str, reason: str) -> Behaviour:
    """Make a behaviour that passes on so many events more, and refuses every one behind them with 400."""
    left = room

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        nonlocal left
        refused = []
        for _ in _entries(request):
            refused.append(left <= 0)
            left -= 1
        return await _keep_back(request, refused, 400, {"type": error_type, "reason": reason})

    return behave


def _entries(request: ProxiedRequest) -> list[bytes]:
    lines = request.body.split(b"\n")[:-1] if request.is_bulk else []
    return [b"%b\n%b\n" % pair for pair in zip(lines[::2], lines[1::2], strict=True)]


async def _keep_back(
    request: ProxiedRequest, kept_back: list[bool], status: int, error: Mapping[str, str]
) -> web.StreamResponse:
    """Pass on a bulk but for some items, which are refused."""
    if not request.is_bulk:
        return await pass_on(request)
    passed = b"".join(entry for entry, kept in zip(_entries(request), kept_back, strict=True) if not kept)
    answered = iter(json.loads((await request.forward(passed)).body)["items"] if passed else [])
    refused = {"create": {"status": status, "error": error}}
    request.interfere()
    items = [refused if kept else next(answered) for kept in kept_back]
    return request.answer(Answer(200, json.dumps({"errors": any(kept_back), "items": items}).encode()))


def refuse_bulks_with(text: bytes, status: int, kind: str) -> Behaviour:
    """Make a behaviour that refuses every bulk that holds a text, with a page ("html") or in JSON."""
    error = {"type": "security_exception", "reason": "blocked by a rule"}
    page = json.dumps({"error": error, "status": status}).encode() if kind == "json" else PAGE
    content_type = "application/json" if kind == "json" else "text/html"

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        if not request.is_bulk or text not in request.body:
            return await pass_on(request)
        request.interfere()
        return request.answer(Answer(status, page, content_type))

    return behave


def refuse_larger_than(body_bytes_max: int) -> Behaviour:
    """Make a behaviour that answers 413 to larger requests."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        if len(request.body) <= body_bytes_max:
            return await pass_on(request)
        request.interfere()
        return request.answer(Answer(413, PAGE, "text/html"))

    return behave


def be_slow(latency_s: float) -> Behaviour:
    """Make a behaviour that keeps every answer back for a while."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        answer = await request.forward()
        await asyncio.sleep(latency_s)
        request.interfere()
        return request.answer(answer)

    return behave


def reset_on(poison: bytes) -> Behaviour:
    """Make a behaviour that cuts the connection of every request that holds these bytes."""

    async def behave(request: ProxiedRequest) -> web.StreamResponse:
        return await (reset_before if poison in request.body else pass_on)(request)

    return behave
