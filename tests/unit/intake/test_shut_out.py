"""Who is shut out by an operator, or by a key that is gone: on one connection, whether or not the head is known."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from forebay.denials.changing import add, remove
from forebay.denials.denials import Denials
from forebay.denials.entries import Kind, read_entries
from forebay.model import Admission
from forebay.tokens.claims import Scope
from forebay.tokens.making import make_token
from forebay.tokens.parts import digest_token
from unit.denials.making import Files, denial
from unit.intake.fakes import SECRET, FakeTransport, Server

EVENT = {"page": "/home", "event": "click"}
TOKEN = make_token(SECRET, "alice", [Scope.WRITE], 86_400, jti="alice-1")
OTHER = make_token(SECRET, "bob", [Scope.WRITE], 86_400)
DIGEST = digest_token(TOKEN.encode())
DEVICE = "3f0a"
PEER = "192.0.2.1"


def request(url: str, content_type: str, body: str, token: str = "") -> bytes:
    lines = [f"POST {url} HTTP/1.1", f"Content-Type: {content_type}", f"Device-UUID: {DEVICE}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def in_each_way(token: str) -> dict[str, bytes]:
    """Return requests in every format, with the token wherever it may be."""
    event, query = json.dumps(EVENT), f"access_token={token}"
    beacon, batch, lines = json.dumps(EVENT | {"access_token": token}), f"[{event},{event}]", f"{event}\n{event}\n"
    plain, form = "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"
    return {
        "single": request("/events", "application/json", event, token),
        "batch": request("/events/batch", "application/json", batch, token),
        "lines": request("/events/batch", "application/x-ndjson", lines, token),
        "text": request("/events", plain, event, token),
        "form": request("/events", form, urlencode({"data": event}), token),
        "single, token in the query": request(f"/events?{query}", "application/json", event),
        "batch, token in the query": request(f"/events/batch?{query}", "application/json", batch),
        "lines, token in the query": request(f"/events/batch?{query}", "application/x-ndjson", lines),
        "text, token in the query": request(f"/events?{query}", plain, event),
        "form, token in the query": request(f"/events?{query}", form, urlencode({"data": event})),
        "text, token in the body": request("/events", plain, beacon),
        "text batch, token in the query": request(f"/events/batch?{query}", plain, batch),
        "form, token in the body": request("/events", form, urlencode({"access_token": token, "data": event})),
        "form, token in its JSON": request("/events", form, urlencode({"data": beacon})),
        "form, bare JSON": request("/events", form, beacon),
    }


WAYS = in_each_way(TOKEN)
SHUT_OUT = {
    "device": (Kind.DEVICE, DEVICE, 403),
    "address": (Kind.ADDRESS, PEER, 403),
    "address, mapped": (Kind.ADDRESS, f"::ffff:{PEER}", 403),
    "network": (Kind.ADDRESS, "192.0.2.0/24", 403),
    "sub": (Kind.SUB, "alice", 401),
    "jti": (Kind.TOKEN, "alice-1", 401),
    "digest": (Kind.TOKEN, DIGEST, 401),
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    database = tmp_path / "spool.db"
    database.touch()
    return Files(database, tmp_path / "spool.db.denials")


def change(server: Server, files: Files, *entries: tuple[Kind, str]) -> None:
    """Bring the list to these entries as commands do, and let the server look at it as it does each second."""
    wanted, known = set(entries), {(entry.kind, entry.value) for entry in read_entries(files.denials)}
    if known - wanted:
        remove(files.database, files.denials, known - wanted)
    if wanted - known:
        add(files.database, files.denials, [denial(*entry) for entry in wanted - known])
    look_again(server.denials)


def look_again(denials: Denials) -> None:
    denials._set(denials._look())


async def wait_for_version(denials: Denials, version: int) -> None:
    async with asyncio.timeout(10):
        while denials.version < version:
            await asyncio.sleep(0.01)


def send(server: Server, sent: bytes, peer: str = PEER) -> FakeTransport:
    """Send a request on a connection of its own, and admit whatever comes through."""
    connection, transport = server.connect(peer=peer)
    connection.data_received(sent)
    for taken in server.admitter.requests:
        if taken.response is None:
            taken.admitted(Admission.CREATED)
    return transport


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", SHUT_OUT)
async def test_whoever_is_shut_out_is_refused_also_by_a_known_head_and_is_let_in_again(
    files: Files, who: str, way: str
) -> None:
    kind, value, status = SHUT_OUT[who]
    server, sent = Server(denials=files.denials), WAYS[way]
    statuses = []
    for entries in ([], [(kind, value)], []):
        change(server, files, *entries)
        statuses += [send(server, sent).statuses for _ in range(2)]
        if entries:
            assert len(server.admitter.requests) == 2
            assert server.counters.denied == {kind.value: 2}
    assert statuses == [[200], [200], [status], [status], [200], [200]]
    assert len(server.admitter.requests) == 4
    assert (server.counters.rejected, server.limits.used_bytes) == (2, 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", SHUT_OUT)
async def test_whoever_is_shut_out_before_the_start_is_refused_and_others_are_not(
    files: Files, who: str, way: str
) -> None:
    kind, value, status = SHUT_OUT[who]
    files.write(denial(kind, value))
    server = Server(denials=files.denials)
    transport = send(server, WAYS[way])
    assert transport.statuses == [status]
    assert TOKEN.encode() not in transport.written
    assert DIGEST.encode() not in transport.written
    assert server.admitter.requests == []
    other = in_each_way(OTHER)[way].replace(DEVICE.encode(), b"4b1c")
    assert send(server, other, peer="198.51.100.1").statuses == [200]


async def test_one_who_is_shut_out_keeps_nobody_else_out_who_sends_the_same_bytes(files: Files) -> None:
    server, sent = Server(denials=files.denials), WAYS["single"]
    change(server, files, (Kind.ADDRESS, "192.0.2.1"))
    statuses = [send(server, sent, peer=peer).statuses for peer in ("192.0.2.2", PEER, "192.0.2.2", PEER)]
    assert statuses == [[200], [403], [200], [403]]


@pytest.mark.parametrize(("peer", "other"), [("192.0.2.1", "192.0.2.11"), ("2001:db8::", "2001:db8::1"), ("", "::1")])
async def test_a_client_cannot_begin_its_request_with_the_rest_of_an_address_that_is_let_in(
    files: Files, peer: str, other: str
) -> None:
    server, sent = Server(denials=files.denials), WAYS["single"]
    assert send(server, sent, peer=other).statuses == [200]
    forged = other.removeprefix(peer).encode() + sent
    assert send(server, forged, peer=peer).statuses == [400]
    assert len(server.admitter.requests) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", SHUT_OUT)
@pytest.mark.parametrize("is_head_known", [False, True])
async def test_a_request_that_is_half_there_is_judged_by_the_list_that_is_there_when_all_of_it_is(
    files: Files, who: str, way: str, *, is_head_known: bool
) -> None:
    kind, value, status = SHUT_OUT[who]
    server, sent = Server(denials=files.denials), WAYS[way]
    if is_head_known:
        assert send(server, sent).statuses == [200]
    taken = len(server.admitter.requests)
    for entry, expected in (((Kind.DEVICE, "another"), 200), ((kind, value), status)):
        connection, transport = server.connect(peer=PEER)
        connection.data_received(sent[:-5])
        change(server, files, entry)
        connection.data_received(sent[-5:])
        for each in server.admitter.requests[taken:]:
            if each.response is None:
                each.admitted(Admission.CREATED)
        assert transport.statuses == [expected]
    assert len(server.admitter.requests) == taken + 1
    assert server.limits.used_bytes == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_that_expires_before_all_of_a_request_is_there_is_not_taken(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, sent = Server(), WAYS[way]
    valid_until = server.verifier.verify(f"Bearer {TOKEN}".encode()).valid_until
    for at, status in ((valid_until - 1, 200), (valid_until, 401)):
        monkeypatch.setattr("time.time", lambda: valid_until - 1)
        connection, transport = server.connect(peer=PEER)
        connection.data_received(sent[:-5])
        monkeypatch.setattr("time.time", lambda now=at: now)
        connection.data_received(sent[-5:])
        if server.admitter.requests[-1].response is None:
            server.admitter.requests[-1].admitted(Admission.CREATED)
        assert transport.statuses == [status]
    assert (len(server.admitter.requests), server.counters.rejected, server.limits.used_bytes) == (1, 1, 0)


async def test_a_beacon_is_judged_by_the_list_that_is_there_when_its_token_is(files: Files) -> None:
    server, sent = Server(denials=files.denials), WAYS["text, token in the body"]
    for entry, status in (((Kind.DEVICE, DEVICE), 403), ((Kind.SUB, "alice"), 401)):
        change(server, files)
        connection, transport = server.connect(peer=PEER)
        connection.data_received(sent[:-5])
        change(server, files, entry)
        connection.data_received(sent[-5:])
        assert transport.statuses == [status]
    assert server.admitter.requests == []


async def test_a_known_head_stays_known_while_the_list_does_not_change(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, sent = Server(denials=files.denials), WAYS["single"]
    change(server, files, (Kind.DEVICE, "another"))
    send(server, sent)
    monkeypatch.setattr(server.intake, "begin", None)
    look_again(server.denials)
    assert send(server, sent).statuses == [200]


async def test_a_list_that_is_damaged_lets_nobody_in_again(files: Files) -> None:
    server, sent = Server(denials=files.denials), WAYS["single"]
    change(server, files, (Kind.DEVICE, DEVICE))
    files.denials.write_text("{", encoding="utf-8")
    with pytest.raises(Exception, match="cannot be read"):
        look_again(server.denials)
    assert send(server, sent).statuses == [403]


async def test_a_change_is_in_force_without_a_word_to_the_server(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.denials.denials.LOOK_S", 0.01)
    server, sent = Server(denials=files.denials), WAYS["single"]
    watching = asyncio.create_task(server.denials.watch())
    try:
        assert send(server, sent).statuses == [200]
        add(files.database, files.denials, [denial(Kind.DEVICE, DEVICE)])
        await wait_for_version(server.denials, 1)
        assert send(server, sent).statuses == [403]
        remove(files.database, files.denials, [(Kind.DEVICE, DEVICE)])
        await wait_for_version(server.denials, 2)
        assert send(server, sent).statuses == [200]
    finally:
        watching.cancel()


@pytest.mark.parametrize("way", WAYS)
async def test_if_a_key_is_gone_the_heads_of_its_tokens_are_judged_again(way: str) -> None:
    server, sent = Server(), WAYS[way]
    assert [send(server, sent).statuses for _ in range(2)] == [[200], [200]]
    remove_the_key(server)
    assert [send(server, sent).statuses for _ in range(2)] == [[401], [401]]
    assert len(server.admitter.requests) == 2


def remove_the_key(server: Server) -> None:
    """Do as a set of keys does in which one is missing."""
    server.verifier._own = server.verifier._own._replace(keys=_NoKeys())
    server.verifier.forget()


class _NoKeys:
    def find(self, key_id: str | None, *, is_last_try: bool) -> tuple[()]:
        del key_id, is_last_try
        return ()


def call(user: str, device: str) -> dict[str, object]:
    context = {"device": {"id": device}}
    return {"type": "track", "event": "Paid", "messageId": f"{user} {device}", "userId": user, "context": context}


def record(user: str, device: str) -> dict[str, object]:
    named = {"user.id": user, "device.id": device}
    return {"attributes": [{"key": key, "value": {"stringValue": value}} for key, value in named.items()]}


SENT = [("carol", "9999"), ("carol", DEVICE), ("mallory", "9999")]
NAMED = {
    "Segment": ("/v1/batch", {"batch": [call(*sender) for sender in SENT]}),
    "OTLP": ("/v1/logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record(*sender) for sender in SENT]}]}]}),
}


@pytest.mark.parametrize("form", NAMED)
async def test_a_user_or_a_device_that_an_event_names_is_shut_out_too_and_costs_no_other(
    files: Files, form: str
) -> None:
    server = Server(denials=files.denials)
    change(server, files, (Kind.DEVICE, DEVICE), (Kind.SUB, "mallory"))
    path, body = NAMED[form]
    sent = request(path, "application/json", json.dumps(body), OTHER)
    sent = sent.replace(f"Device-UUID: {DEVICE}\r\n".encode(), b"")
    connection, transport = server.connect(peer=PEER)
    connection.data_received(sent)
    (taken,) = server.admitter.requests
    taken.admitted(Admission.CREATED)
    assert transport.statuses == [200]
    (entry,) = [entry for part in taken.parts for entry in part.entries]
    assert b'"user_id":"carol"' in entry
    assert (server.counters.denied["device"], server.counters.denied["sub"], server.counters.rejected) == (1, 1, 2)
