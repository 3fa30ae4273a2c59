"""Forebay: takes events over HTTP and registers them in OpenSearch in bulk, without losing one."""

__version__ = "0.1.0.dev0"
