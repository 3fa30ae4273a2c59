"""Reads the settings of the cluster that are in force."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from forebay.doctor.context import Context


class _Settings(Struct):
    defaults: dict[str, Any] = field(default_factory=dict)
    persistent: dict[str, Any] = field(default_factory=dict)
    transient: dict[str, Any] = field(default_factory=dict)


def read_settings(context: Context) -> dict[str, Any]:
    """Return settings by their flat names: a transient one goes before a persistent one, and that before a default."""
    given = context.answers().read("settings", _Settings)
    return given.defaults | given.persistent | given.transient
