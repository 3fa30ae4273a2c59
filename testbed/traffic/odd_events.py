"""Makes events of which nothing is certain but that they are JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

DEPTH_MAX = 32
TERM_BYTES_MAX = 32_766
CHARACTERS = (
    "x",
    "é",
    "€",
    "😀",
    "\x00",
    "\x1f",
    "\x7f",
    "\\",
    '"',
    "/",
    "\n",
    "\u2028",
    "\ufeff",
    "\uffff",
    "\u202e",
    "e\u0301",
)
TEXTS = ("", " ", "\x00", "true", "null", "1e400", "=", ".", "a=b", "😀", "\ud7ff\ue000", "</script>", "../..", "{}")
KEYS = (
    *("a", "b", "a.b", "", ".", "..", "...", "a.", ".a", "a..b", " ", " a ", "\t", "\x00", "=", "a=b", "é", "😀"),
    *("_id", "_source", "_value", "_valueAndPath", "value", "unindexed", "event_info", "@timestamp", "$ref"),
    *("*", "~", "/", "\\", "1", "null"),
)  # fmt: skip
NUMBERS = (
    *("0", "-0", "1.0e0", "1.10", "-1e-400", "1e400", "0e999999999", "1E+1000000000", "1e-2147483649", "1e99999999999"),
    *("9007199254740993", "18446744073709551616", "-9223372036854775809", "0.1e-0", "123456789.000000000000000000001"),
)  # fmt: skip
TIMES = (
    *('"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"', '"1969-12-31T23:59:59.9999999-23:59"'),
    *('"2026-11-24T12:00:60Z"', "0", "-1", "0.5", "-62135596800000", "253402300799999", "1.7e12", "null"),
)  # fmt: skip
DIGITS = (998, 999, 1000, 1001, 1002, 4301, 5000, 33_000)
LENGTHS_BYTES = (8_191, 8_192, 16_383, 32_700, 32_733, TERM_BYTES_MAX, 33_000, 40_000, 50_001)


class OddEvents:
    """Makes bodies for `POST /events` and values for its headers; the same from the same random numbers."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._long_texts = 0

    def body(self, log_id: str) -> bytes:
        """Make an event; now and then its `log_id` has odd characters behind the given ones."""
        # Few: under a long path each value is a term as long, and thousands of them are too much for any server.
        self._long_texts = self._pick((0, 0, 0, 1, 3))
        if self._chance(0.1):
            log_id += self._text()[:20]
        fields = [("log_id", json.dumps(log_id)), ("page", self._required()), ("event", self._required())]
        fields += [(name, self._optional()) for name in ("label", "target", "section") if self._chance(0.4)]
        if self._chance(0.3):
            fields.append(("timestamp", self._pick(TIMES)))
        fields += [(self._key(), self._value(0)) for _ in range(self._random.choice((0, 0, 1, 3)))]
        if self._chance(0.9):
            fields.append(("param", self._value(0)))
        self._random.shuffle(fields)
        return self._object(fields).encode()

    def header(self) -> str | None:
        """Make the value of a header; HTTP has no control characters in it."""
        if self._chance(0.5):
            return None
        return "".join(character for character in self._text()[:8_192] if character.isprintable())

    def _value(self, depth: int) -> str:
        makers: list[Callable[[int], str]] = [self._string, self._number, self._word]
        if depth < DEPTH_MAX:
            makers += [self._array, self._dictionary, self._dictionary]
            if depth == 0:
                makers += [self._deep, self._at_the_limit]
        return self._pick(makers)(depth)

    def _dictionary(self, depth: int) -> str:
        fields = [(self._key(), self._value(depth + 1)) for _ in range(self._random.choice((0, 1, 2, 5)))]
        if fields and self._chance(0.1):
            fields.append((fields[0][0], self._value(depth + 1)))
        return self._object(fields)

    def _array(self, depth: int) -> str:
        return "[" + ",".join(self._value(depth + 1) for _ in range(self._random.choice((0, 1, 2, 4)))) + "]"

    def _deep(self, _: int) -> str:
        """Make a value at the deepest level that is allowed."""
        text = self._value(DEPTH_MAX)
        for _level in range(self._random.choice((DEPTH_MAX - 1, DEPTH_MAX))):
            text = f"[{text}]" if self._chance(0.3) else self._object([(self._pick(KEYS), text)])
        return text

    def _at_the_limit(self, _: int) -> str:
        """Make a value that is just a term in `param`, or just none."""
        character = self._pick(("x", "é", "€", "😀"))
        keys = [self._pick(KEYS) for _ in range(self._random.randint(1, 4))]
        path = "event_info.param.event_info.param." + ".".join(keys) + "="
        room_bytes = TERM_BYTES_MAX - len(path.encode()) + self._random.choice((-1, 0, 1, 2))
        count, rest = divmod(room_bytes, len(character.encode()))
        text = self._quote(character * count + "x" * rest)
        for key in reversed(keys):
            text = self._object([(key, f"[[],{text}]" if self._chance(0.3) else text)])
        return text

    def _object(self, fields: list[tuple[str, str]]) -> str:
        blank = self._pick(("", "", " ", "\n\t"))
        return "{" + f",{blank}".join(f"{self._quote(key)}{blank}:{text}" for key, text in fields) + "}"

    def _word(self, _: int) -> str:
        return self._pick(("null", "true", "false", "{}", "[]", "[[]]", "[null]", '{"a":null}'))

    def _string(self, _: int) -> str:
        return self._quote(self._text())

    def _number(self, _: int) -> str:
        if self._chance(0.95):
            return self._pick(NUMBERS)
        digits = self._pick("123456789") * self._pick(DIGITS)
        point = self._random.randint(1, len(digits) - 1)
        return self._pick(("", "-")) + self._pick((digits, f"{digits[:point]}.{digits[point:]}", f"1e{digits[1:]}"))

    def _required(self) -> str:
        return self._quote(self._text() or "x")

    def _optional(self) -> str:
        return "null" if self._chance(0.1) else self._string(0)

    def _key(self) -> str:
        return self._text() if self._chance(0.05) else self._pick(KEYS)

    def _text(self) -> str:
        if self._chance(0.6):
            return self._pick(TEXTS)
        if self._long_texts and self._chance(0.2):
            self._long_texts -= 1
            character = self._pick(("x", "é", "€", "😀", "\\"))
            return character * (self._pick(LENGTHS_BYTES) // len(character.encode()))
        return "".join(self._random.choices(CHARACTERS, k=self._random.randint(1, 40)))

    def _quote(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=self._chance(0.5))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)
