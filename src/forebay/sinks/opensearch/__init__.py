"""OpenSearch as a sink: `client` speaks HTTP, `answers` reads what comes back, `template` keeps the index template."""

from forebay.sinks.opensearch.sink import OpenSearchSink
from forebay.sinks.opensearch.template import put_template

__all__ = ["OpenSearchSink", "put_template"]
