"""The ways in which a `FaultyProxy` misbehaves."""

import asyncio
import json
import random

from aiohttp import web

from servers.faulty_proxy import Answer, Behaviour, Exchange, pass_on

PAGE = b"<html><head><title>Please sign in</title></head><body><h1>Captive portal</h1></body></html>\n"
REJECTED = {"type": "rejected_execution_exception", "reason": "rejected execution of coordinating operation"}


async def reset_before(exchange: Exchange) -> web.StreamResponse:
    """Cut the connection once the request has arrived; OpenSearch never hears of it."""
    exchange.interfere()
    return exchange.reset()


async def reset_after(exchange: Exchange) -> web.StreamResponse:
    """Cut the connection when OpenSearch has done what was asked."""
    exchange.interfere()
    await exchange.forward()
    return exchange.reset()


async def reset_in_answer(exchange: Exchange) -> web.StreamResponse:
    """Cut the connection in the middle of OpenSearch's answer."""
    answer = await exchange.forward()
    exchange.interfere()
    return await exchange.answer_half(answer)


async def hang_after(exchange: Exchange) -> web.StreamResponse:
    """Let OpenSearch do what was asked, and never answer."""
    exchange.interfere()
    await exchange.forward()
    await exchange.wait_switched()
    return exchange.reset()


async def show_page(exchange: Exchange) -> web.StreamResponse:
    """Answer with 200 and a page that is not OpenSearch's."""
    exchange.interfere()
    return exchange.answer(Answer(200, PAGE, "text/html"))


async def cut_json(exchange: Exchange) -> web.StreamResponse:
    """Answer with the first half of what OpenSearch has said, as if that were all."""
    status, body, content_type = await exchange.forward()
    exchange.interfere()
    return exchange.answer(Answer(status, body[: len(body) // 2], content_type))


async def drop_items(exchange: Exchange) -> web.StreamResponse:
    """Leave the last item out of the answer to a bulk."""
    if not exchange.is_bulk:
        return await pass_on(exchange)
    status, body, content_type = await exchange.forward()
    exchange.interfere()
    answer = json.loads(body)
    answer["items"] = answer.get("items", [])[:-1]
    return exchange.answer(Answer(status, json.dumps(answer).encode(), content_type))


def refuse_all(status: int) -> Behaviour:
    """Make a behaviour that answers every request with this status and OpenSearch's words for too much work."""
    body = json.dumps({"error": REJECTED, "status": status}).encode()

    async def behave(exchange: Exchange) -> web.StreamResponse:
        exchange.interfere()
        return exchange.answer(Answer(status, body))

    return behave


def refuse_items(share: float) -> Behaviour:
    """Make a behaviour that answers 429 to this share of a bulk's items, other ones each time, and keeps them back."""

    async def behave(exchange: Exchange) -> web.StreamResponse:
        if not exchange.is_bulk:
            return await pass_on(exchange)
        lines = exchange.body.split(b"\n")[:-1]
        entries = [b"%b\n%b\n" % pair for pair in zip(lines[::2], lines[1::2], strict=True)]
        kept_back = [random.random() < share for _ in entries]
        passed = b"".join(entry for entry, kept in zip(entries, kept_back, strict=True) if not kept)
        answered = iter(json.loads((await exchange.forward(passed)).body)["items"] if passed else [])
        rejected = {"create": {"status": 429, "error": REJECTED}}
        exchange.interfere()
        items = [rejected if kept else next(answered) for kept in kept_back]
        return exchange.answer(Answer(200, json.dumps({"errors": any(kept_back), "items": items}).encode()))

    return behave


def be_slow(latency_s: float) -> Behaviour:
    """Make a behaviour that keeps every answer back for a while."""

    async def behave(exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.forward()
        await asyncio.sleep(latency_s)
        exchange.interfere()
        return exchange.answer(answer)

    return behave


def reset_on(poison: bytes) -> Behaviour:
    """Make a behaviour that cuts the connection of every request that holds these bytes."""

    async def behave(exchange: Exchange) -> web.StreamResponse:
        return await (reset_before if poison in exchange.body else pass_on)(exchange)

    return behave
