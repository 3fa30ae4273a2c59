"""Which sink the settings name."""

from __future__ import annotations

from forebay.settings import Settings
from forebay.sinks.local import LocalReader, LocalSink
from forebay.sinks.months import MonthKeeper
from forebay.sinks.port import EventReader, Sink


def make_sink(settings: Settings) -> Sink:
    """Return OpenSearch where it is set, else the embedded store; to be called in the loop that it will be used in.

    Raises:
        SettingsError: a file with certificates cannot be used, or a package is missing.
    """
    if not settings.open_search_dns:
        return LocalSink(settings.store_path)
    from forebay.sinks.opensearch import OpenSearchSink  # noqa: PLC0415 - aiohttp takes 25 MiB

    return OpenSearchSink(settings)


def make_reader(settings: Settings) -> EventReader:
    """Return a reader of the sink; to be called in the loop that it will be used in.

    Raises:
        SettingsError: as `make_sink`.
    """
    if not settings.open_search_dns:
        return LocalReader(settings.store_path)
    from forebay.sinks.opensearch.access import make_access  # noqa: PLC0415 - aiohttp takes 25 MiB
    from forebay.sinks.opensearch.reader import OpenSearchReader  # noqa: PLC0415 - the same

    return OpenSearchReader(make_access(settings), settings.server_environment)


def make_month_keeper(settings: Settings) -> MonthKeeper:
    """Return a keeper of the sink's months; to be called in the loop that it will be used in.

    Raises:
        SettingsError: as `make_sink`.
    """
    if not settings.open_search_dns:
        from forebay.sinks.local_months import LocalMonths  # noqa: PLC0415 - no server needs it

        return LocalMonths(settings.store_path, settings.server_environment)
    from forebay.sinks.opensearch.access import make_access  # noqa: PLC0415 - aiohttp takes 25 MiB
    from forebay.sinks.opensearch.indices import OpenSearchMonths  # noqa: PLC0415 - the same

    return OpenSearchMonths(make_access(settings), settings.server_environment)
