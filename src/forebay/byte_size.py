"""Numbers of bytes as people read them."""

from __future__ import annotations

KIB = 1024


def format_bytes(count: int) -> str:
    """Return a number of bytes as a person reads it, to three digits."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < KIB:
            break
        value, unit = value / KIB, larger
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}" if value < 1_000 else f"{value:.0f} {unit}"  # noqa: PLR2004
