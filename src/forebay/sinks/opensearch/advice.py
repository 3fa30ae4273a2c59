"""Advice for operators on answers and errors of OpenSearch. Pure."""

from __future__ import annotations

CREDENTIALS = (
    "correct the credentials: the user and password in OPEN_SEARCH_DNS, FOREBAY_OPEN_SEARCH_API_KEY, "
    "FOREBAY_OPEN_SEARCH_BEARER, or those that AWS requests are signed with"
)
RIGHTS = "give our user the rights to put index templates and to create and write to the indices events_*"
INDEX = "let OpenSearch create indices named events_* (action.auto_create_index), or create this one"
PATH = "correct OPEN_SEARCH_DNS: OpenSearch is not at that path"
TEMPLATE = "let us put the index template, or put it by hand and set FOREBAY_INDEX_TEMPLATE=false"
CERTIFICATE = (
    "give OpenSearch a certificate for its name, or name the authority that signed it: FOREBAY_OPEN_SEARCH_CA_FILE"
)
CLIENT_CERTIFICATE = (
    "name a certificate that OpenSearch takes: FOREBAY_OPEN_SEARCH_CERT_FILE and FOREBAY_OPEN_SEARCH_KEY_FILE"
)
REFUSING = (
    "see if a mapping, a template or a pipeline of the index, or a proxy before OpenSearch, refuses every event; if it "
    "is these events alone, `forebay pending bury` makes dead letters of them"
)
SHARDS = "start the nodes that hold the index's shards; GET _cluster/allocation/explain tells why one is nowhere"
AWS_CREDENTIALS = "give AWS credentials in one of the ways that botocore looks for, such as AWS_ACCESS_KEY_ID or a role"

_SETTING = "lift the block that the reason names: one of index.blocks.* of the index, or of cluster.blocks.*"
_BLOCKS = {
    "read-only-allow-delete": "free disk space on OpenSearch's nodes, then clear index.blocks.read_only_allow_delete",
    "create-index": "free disk space on OpenSearch's nodes, then clear cluster.blocks.create_index",
}
"""By a part of the reason: OpenSearch sets both by itself when its disks fill up
(https://docs.opensearch.org/latest/api-reference/cluster-api/cluster-settings/)."""

_CONNECTIONS = (
    (("wrong_version_number", "record_layer_failure", "packet_length"), "it speaks no TLS: http:// in OPEN_SEARCH_DNS"),
    (("plain http request", "server disconnected"), "it may speak TLS: https:// in OPEN_SEARCH_DNS"),
    (("name or service", "name resolution", "getaddrinfo"), "correct the name in OPEN_SEARCH_DNS, or the DNS"),
    (("no answer in time", "no connection in time"), "see whether it is overloaded, or a firewall drops the requests"),
    (("connect call failed", "refused"), "start OpenSearch, or correct the address in OPEN_SEARCH_DNS"),
)
"""By words of the libraries and servers that report an error (OpenSSL, glibc, aiohttp, nginx)."""

OPERATORS_400 = {
    "index_closed_exception": {"": "open the index (POST /INDEX/_open), or delete it"},
    "invalid_index_name_exception": {"": "correct SERVER_ENVIRONMENT: the names of the indices are made of it"},
    "validation_exception": {
        "shards": "delete old indices (forebay index prune) or raise cluster.max_shards_per_node",
    },
    "illegal_argument_exception": {
        "no write index": "name the index of the alias to write to (is_write_index)",
        "explicit index in bulk": "set rest.action.multi.allow_explicit_index to true",
        "Number of documents in the index": "make room: an index with more shards, or delete documents",
        "pipeline with id [": "create that ingest pipeline, or correct FOREBAY_OPEN_SEARCH_PIPELINE or the index's own",
    },
}
"""400s that every event would get, and not a faulty one alone: by type, then by a part of the reason.

Too many shards (it strikes at the turn of a month), a closed index, an alias without an index to write to, a pipeline
that is missing, or `rest.action.multi.allow_explicit_index: false`. The type counts, as the reason of others may quote
the event.
"""


def advise_400(error_type: str, reason: str) -> str:
    """Return advice on a 400 that is not the events' fault, or nothing if it is."""
    parts = OPERATORS_400.get(error_type, {})
    return next((advice for part, advice in parts.items() if part in reason), "")


def advise_block(reason: str) -> str:
    """Return advice on a block (`cluster_block_exception`)."""
    return next((advice for part, advice in _BLOCKS.items() if part in reason), _SETTING)


def advise_404(error_type: str) -> str:
    """Return advice on a missing index or path; OpenSearch itself names the type of the error."""
    return INDEX if error_type else PATH


def advise_connection(error: str) -> str:
    """Return advice on an error of a connection, or on an answer of something else than OpenSearch."""
    text = error.lower()
    advices = (advice for parts, advice in _CONNECTIONS if any(part in text for part in parts))
    return next(advices, "correct OPEN_SEARCH_DNS, or see the log of OpenSearch and of the proxy before it")
