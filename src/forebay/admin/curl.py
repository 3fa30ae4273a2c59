"""Lines for a shell that send an example; in them `FOREBAY` is the server's address and `TOKEN` a token."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from shlex import quote

IN_PATH = "{access_token}"
"""The part of an address that stands for a token."""

AUTHORIZATION = '-H "Authorization: Bearer $TOKEN"'


def read(path: str, *options: str) -> str:
    """Return the line that asks for an address."""
    return _join(f'curl "$FOREBAY{path}"', *options)


def send(path: str, media_type: str, headers: Mapping[str, str], body: bytes, *, is_beacon: bool) -> str:
    """Return the line that sends a body, with the token in the address if that is for beacons or has a place for it."""
    packer, data = "", "@-"
    try:
        data = quote(body.decode())
    except UnicodeDecodeError:
        packer = f"echo {base64.b64encode(body).decode()} | base64 -d | "
    is_in_path = IN_PATH in path
    query = "?access_token=$TOKEN" if is_beacon and not is_in_path else ""
    lines = {"Content-Type": media_type, **headers}
    return _join(
        f'{packer}curl "$FOREBAY{path.replace(IN_PATH, "$TOKEN")}{query}"',
        *([] if is_beacon or is_in_path else [AUTHORIZATION]),
        *(f"-H {quote(f'{name}: {value}')}" for name, value in lines.items()),
        f"--data-binary {data}",
    )


def send_form(path: str, body: bytes) -> str:
    """Return the line that sends a text as the field `data` of a form; the token is in the form, too."""
    return _join(
        f'curl "$FOREBAY{path.replace(IN_PATH, "$TOKEN")}"',
        *([] if IN_PATH in path else ['--data-urlencode "access_token=$TOKEN"']),
        f"--data-urlencode {quote(f'data={body.decode()}')}",
    )


def _join(*parts: str) -> str:
    return " \\\n  ".join(parts)
