"""Events of many kinds, each made from its number and, for its times, the clock, so that a run can be compared."""

import random
import time
import unicodedata
import uuid
import zoneinfo
from collections.abc import Callable, Sequence
from typing import Any

Event = dict[str, Any]

ZONES = sorted(zoneinfo.available_timezones())
"""Names that a package ships: about six hundred real paths."""

SCRIPTS = [
    "Главная страница",
    "ホーム画面",
    "결제 완료",
    "صفحة الدفع",
    "עמוד הבית",
    "ไทย",
    "Ελληνικά",
    "naïve café",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "👩‍👩‍👧‍👦 family",
]
KINDS = ["view", "click", "scroll", "impression", "purchase", "sign up", "erreur réseau"]


def make_events(first: int, count: int, *, with_ids: bool = True) -> list[Event]:
    """Return events number `first` and on; without ids, every tenth leaves its `log_id` to the server."""
    return [make_event(number, with_id=with_ids or number % 10 > 0) for number in range(first, first + count)]


def make_event(number: int, *, with_id: bool = True, now_s: float | None = None) -> Event:
    """Return one event; `now_s` is the clock of the client that makes it, else the machine's."""
    source = random.Random(number)
    now_ms = int((time.time() if now_s is None else now_s) * 1000)
    event: Event = {"page": f"/{source.choice(ZONES)}", "event": source.choice(KINDS)}
    if with_id:
        event["log_id"] = _log_id(number, source, now_ms)
    if source.random() < 0.3:
        event["page"] = source.choice(SCRIPTS)
    for field in ("label", "target", "section"):
        if source.random() < 0.7:
            event[field] = _text(source)
    if source.random() < 0.3:
        event["timestamp"] = now_ms - source.randrange(86_400_000)
    if source.random() < 0.8:
        event["param"] = source.choice(PARAMS)(source)
    if source.random() < 0.1:
        event["experiment"] = {"name": _text(source), "arm": source.randrange(3)}
    return event


def make_bad_event(number: int) -> Event:
    """Return an event that no server should take: it names no page."""
    return {"event": "bad", "log_id": f"bad-{number}"}


def is_bad(event: Event) -> bool:
    """Return whether an event is one that no server should take."""
    return "page" not in event


def _log_id(number: int, source: random.Random, now_ms: int) -> str:
    if number % 7 == 0:
        return f"{source.choice(SCRIPTS)}-{number}"
    if number % 7 == 1:
        return str(uuid.UUID(int=source.getrandbits(128), version=4))
    value = (
        (now_ms & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | number << 64 & 0xFFF << 64 | 0x8 << 60 | source.getrandbits(60)
    )
    return str(uuid.UUID(int=value))


def _text(source: random.Random) -> str:
    if source.random() < 0.5:
        return source.choice(SCRIPTS)
    character = chr(source.randrange(0x20, 0x2FFF))
    return f'{unicodedata.name(character, "no name")} "{character}" \\ \t\n {source.randrange(1000)}'.replace(
        "\x7f", ""
    )


def _shop(source: random.Random) -> Event:
    items = [{"sku": f"SKU-{source.randrange(10_000)}", "price": round(source.random() * 100, 2)} for _ in range(3)]
    return {"items": items, "currency": "₩", "coupon": None, "first": source.random() < 0.5}


def _deep(source: random.Random) -> Event:
    value: Any = source.randrange(100)
    for level in range(source.randrange(1, 20)):
        value = {f"level {level}": value} if level % 2 else [value]
    return {"deep": value}


def _odd(source: random.Random) -> Event:
    return {
        "": "empty key",
        "a.b": {"c.d": 1},
        "key with spaces ": "\u0000\u001f\u2028\ufeff",
        "😀": source.choice(SCRIPTS),
        "large": 2**70 + source.randrange(100),
        "small": -1e-300,
        "empty": [[], {}, "", None],
    }


def _long(source: random.Random) -> Event:
    return {"text": source.choice(SCRIPTS) * source.randrange(1, 200), "numbers": list(range(source.randrange(300)))}


def _scalar(source: random.Random) -> Any:
    return source.choice([1, 2.5, True, "text", [1, "two", None], 0, "", False])


PARAMS: Sequence[Callable[[random.Random], Any]] = [_shop, _shop, _shop, _deep, _odd, _long, _scalar]


def expected_info(event: Event) -> Event:
    """Return the `event_info` of the document that Forebay makes of an event."""
    known = ("page", "event", "label", "target", "section")
    info = {field: event[field] for field in known if field in event}
    if "param" in event:
        param = event["param"]
        info["param"] = param if isinstance(param, dict) else {"value": param}
    extra = {key: value for key, value in event.items() if key not in (*known, "log_id", "param", "timestamp")}
    if extra:
        info["extra"] = extra
    return info
