"""Entries as they are shown, also those that are damaged: a person looks at them to find out why."""

from __future__ import annotations

import json
from typing import Any

from forebay.model import Address, Entry, entry_address, entry_document


def read_address(entry: Entry) -> Address | None:
    """Return where an entry belongs, or None where it does not say so."""
    try:
        return entry_address(entry)
    except ValueError:
        return None


def read_document(entry: Entry) -> Any:
    """Return the document, or the whole entry as text where there is none in it."""
    try:
        return json.loads(entry_document(entry))
    except ValueError:
        return entry.decode("utf-8", "replace")
