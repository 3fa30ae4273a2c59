"""Lines for a shell that send an example; in them `FOREBAY` is the server's address and `TOKEN` a token."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from shlex import quote

IN_PATH = "{access_token}"
"""The part of an address that stands for a token."""

BEARER = '-H "Authorization: Bearer $TOKEN"'
BASIC = '-u "$TOKEN:"'


def as_text(body: bytes) -> str | None:
    """Return a body that can be read and copied; None for any other one."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", "").isprintable() else None


def read(path: str, *options: str) -> str:
    """Return the line that asks for an address."""
    return _join(f'curl "$FOREBAY{path}"', *options)


def send(path: str, media_type: str, headers: Mapping[str, str], body: bytes, *options: str) -> str:
    """Return the line that sends a body; the options say who sends, if the address does not."""
    text = as_text(body)
    packer = "" if text is not None else f"echo {base64.b64encode(body).decode()} | base64 -d | "
    data = "@-" if text is None else quote(text)
    lines = {"Content-Type": media_type, **headers}
    return _join(
        f'{packer}curl "$FOREBAY{path.replace(IN_PATH, "$TOKEN")}"',
        *([] if IN_PATH in path else options),
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
