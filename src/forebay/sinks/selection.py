"""The sink that the settings name."""

from __future__ import annotations

import importlib

from forebay.settings import Settings
from forebay.sinks.local import LocalSink
from forebay.sinks.port import Sink


def make_sink(settings: Settings) -> Sink:
    """Return OpenSearch if it is set, else the embedded store; to be called in the loop that the sink is used in.

    Raises:
        SettingsError: a file with certificates cannot be used, or a package is missing.
    """
    if not settings.open_search_dns:
        return LocalSink(settings.store_path, settings.server_environment)
    from forebay.sinks.opensearch.sink import OpenSearchSink  # noqa: PLC0415 - aiohttp takes 10 MB

    return OpenSearchSink(settings)


def load_sink(settings: Settings) -> None:
    """Import the modules of the sink: processes that are forked later share their memory."""
    if settings.open_search_dns:
        importlib.import_module("forebay.sinks.opensearch.sink")
