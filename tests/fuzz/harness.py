"""Feeds any bytes to one decoder of the way in: a format of the registry, or a content coding.

    python -m fuzz.harness                       names all decoders
    python -m fuzz.harness DECODER [OPTION …]    fuzzes one, with options of libFuzzer
    python -m fuzz.harness DECODER FILE          feeds it one file, such as one that an earlier run has left

Whatever the bytes are, a body is taken or refused with a `Rejection`; every entry is two lines of JSON, and every event
has a result. An exception ends the run, and the bytes are left in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import atheris

with atheris.instrument_imports(include=["forebay.intake", "forebay.model"]):
    from forebay.errors import Rejection
    from forebay.intake.answers import Answer, Turn
    from forebay.intake.formats.beacon import TextBeacon
    from forebay.intake.formats.compressed import CODINGS, unpack
    from forebay.intake.formats.format import Format, FormatOfHead
    from forebay.intake.formats.registry import list_addresses
    from forebay.intake.heads import Grant
    from forebay.intake.intake import Request
    from forebay.intake.senders import encode_sender
    from forebay.model import Ack, Admission
    from forebay.tokens.claims import Claims
    from unit.intake.fakes import FakeAdmitter, Server

BODY_BYTES_MAX = 4_096
"""Most bytes of a body that libFuzzer makes."""

UNPACKED_BYTES_MAX = 100_000
INPUT_S_MAX = 20
"""How long one input may take, on a machine with other things to do."""

HEAD_END = b"\n\n"
SENDER = encode_sender("alice", b"3f0a", b"4.2.1")


class Decoder(NamedTuple):
    """A decoder, a function that feeds it, and bytes that it takes."""

    name: str
    feed: Callable[[bytes], None]
    examples: list[bytes]


class Client:
    """The client's end of a connection: keeps the answer."""

    peer = b"192.0.2.1"

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def answer(self, turn: Turn, answer: Answer) -> None:
        del turn
        self.answers.append(answer)

    def abandon(self, turn: Turn) -> None:
        raise AssertionError(turn)


class Pipeline(FakeAdmitter):
    """Looks at what it gets, and tells the client that it is safe."""

    def admit(self, request: Request, ack: Ack) -> None:
        del ack
        for part in request.parts:
            for entry in part.entries:
                action, document, end = entry.split(b"\n")
                assert (end, *json.loads(action)["create"]) == (b"", "_index", "_id")
                assert isinstance(json.loads(document, parse_constant=_refuse_constant), dict)
        request.admitted(Admission.CREATED)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


class Taking:
    """Takes bodies of one format, as the intake does."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._server = Server()
        self._intake = self._server.intake
        self._intake._admitter = Pipeline()  # type: ignore[assignment]

    def feed(self, data: bytes) -> None:
        form, body = self._form, data
        client = Client()
        try:
            if isinstance(form, FormatOfHead):
                head, _, body = data.partition(HEAD_END)
                form = form.of_head(_read_head(head))
            if isinstance(form, TextBeacon):
                form.find_token(body)
            grant = Grant(Claims("alice", frozenset(), 0.0), form, SENDER, Ack.DISK)
            request = Request(connection=client, counters=self._server.counters, grant=grant)
            self._intake.take(request, body)
        except Rejection as error:
            client.answers.append(form.refuse(error))
        else:
            assert len(request.results) == len(request.places)
        ((status, _, answer),) = client.answers
        assert 200 <= status < 500
        answer.decode()


def _read_head(head: bytes) -> dict[bytes, bytes]:
    lines = [line.partition(b":") for line in head.splitlines()]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _feed_coding(coding: str) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        for bytes_max in (1, UNPACKED_BYTES_MAX):
            with contextlib.suppress(Rejection):
                assert len(unpack(coding, data, bytes_max)) <= bytes_max

    return feed


def list_decoders() -> Iterator[Decoder]:
    """Yield every decoder: each format, and each coding."""
    names: set[str] = set()
    seen: set[tuple[type, int]] = set()
    for path, formats in list_addresses().items():
        for form in formats.values():
            # Each address has beacons of its own.
            key = type(form), id(getattr(form, "_inner", form))
            if key in seen:
                continue
            seen.add(key)
            name = f"{form.name}-{form.media_type.partition('/')[2]}"
            if name in names:
                name += path.decode().replace("/", "-")
            names.add(name)
            yield Decoder(name, Taking(form).feed, [_example_of(form)])
    for coding, examples in EXAMPLES.items():
        yield Decoder(coding, _feed_coding(coding), [*map(bytes.fromhex, examples)])


def _example_of(form: Format) -> bytes:
    if not isinstance(form, FormatOfHead):
        return form.example.body
    lines = [f"{name}: {value}" for name, value in form.example.headers.items()]
    return "\n".join(lines).encode() + HEAD_END + form.example.body


EXAMPLES = {
    # A short text and an empty one.
    "gzip": ["1f8b08000000000002034b4c440000760ae3f60c000000", "1f8b080000000000020303000000000000000000"],
    "deflate": ["789c4b4c4400001d9a048d", "4b4c440000"],
    "br": ["1b0b00f825c2c2840000", "3b"],
    "zstd": ["28b52ffd200c45000010616101001bc002", "28b52ffd2000010000", "502a4d1800000000"],
}


def main(arguments: list[str]) -> None:
    decoders = {decoder.name: decoder for decoder in list_decoders()}
    assert {CODINGS[coding] for coding in EXAMPLES} == set(CODINGS.values()), "a coding has no example"
    if not arguments:
        sys.stdout.writelines(f"{name}\n" for name in decoders)
        return
    decoder, *options = decoders[arguments[0]], *arguments[1:]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, example in enumerate(decoder.examples):
            (corpus / str(number)).write_bytes(example)
        limits = [f"-max_len={BODY_BYTES_MAX}", f"-timeout={INPUT_S_MAX}"]
        words = {word for example in decoder.examples for word in re.findall(rb"[\w@.-]+", example) if word.isascii()}
        if words:
            words_file = Path(folder, "words")
            words_file.write_text("".join(f'"{word.decode()}"\n' for word in sorted(words)))
            limits.append(f"-dict={words_file}")
        atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], decoder.feed)
        atheris.Fuzz()


async def _main() -> None:
    # Parts of a server want a loop to belong to.
    main(sys.argv[1:])


if __name__ == "__main__":
    asyncio.run(_main())
