"""A worker's share of the limits: they are those of the whole server, however many workers it has."""

from __future__ import annotations

from forebay.settings import Settings

SHARED = (
    "channel_events_max",
    "channel_bytes_max",
    "spool_bytes_max",
    "bulk_workers",
    "connections_max",
    "in_hand_bytes_max",
)


def take_share(settings: Settings, slot: int) -> Settings:
    """Return the settings of the worker in a slot; what cannot be divided evenly goes to the lowest slots.

    Each has at least one of everything, and can take the largest body that is allowed.
    """
    shares = {name: _divide(getattr(settings, name), settings.workers, slot) for name in SHARED}
    shares["in_hand_bytes_max"] = max(shares["in_hand_bytes_max"], settings.body_bytes_max)
    return settings.model_copy(update=shares)


def _divide(whole: int, workers: int, slot: int) -> int:
    return max(1, whole // workers + (slot <= whole % workers))
