"""The forms of values: how the text of a setting becomes a value, and which form it must have."""

from __future__ import annotations

import enum
import re
import warnings
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import unquote, urlsplit

import jwt
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

DAY_S = 86_400
IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
HOST_NAME_CHARS_MAX = 253
KEY_FORM = "a secret text for HS256, and no PEM, SSH or DER key or certificate"
HOST_NAME_FORM = "a host whose name has 1 to 63 letters, digits, - and _ between dots, and 253 characters at the most"
EVERY_ORIGIN = "*"
ORIGIN_FORM = "an origin such as https://shop.example, without a path, or *; several with commas"
USUAL_PORTS = {"http": 80, "https": 443}
PATH_FORM = (
    "a path such as /c or /a/b, of letters, digits and . _ ~ -, that is no address of Forebay; several with commas"
)
OWN_PATHS = (
    "/events",
    "/ping",
    "/health",
    "/metrics",
    "/v1",
    "/ubi",
    "/ubi_events",
    "/ubi_queries",
    "/admin",
    "/dashboard",
    "/docs",
    "/openapi",
)
PIPELINE_FORM = (
    "the name of an ingest pipeline: letters, digits, . _ and -, the first a letter or digit, 512 at the most"
)
PROXIES_FORM = "addresses and networks with commas, such as 10.0.0.0/8,::1, and not all addresses"
SINK_HOST_FORM = "an address such as http://localhost:9200 or https://user:password@host:9200, several with commas"


class LogFormat(enum.StrEnum):
    """How log lines look: `auto` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class SecretAlgorithm(enum.StrEnum):
    """The algorithms of tokens that are signed with a secret."""

    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"

    @property
    def secret_chars_min(self) -> int:
        """Return the least length of a secret: as many bytes as the hash has (RFC 7518, section 3.2)."""
        return int(self.removeprefix("HS")) // 8


class AwsService(enum.StrEnum):
    """Amazon's services with OpenSearch, as their signatures name them."""

    ES = "es"  # OpenSearch Service
    AOSS = "aoss"  # OpenSearch Serverless


class ForwardedHeader(enum.StrEnum):
    """The header field in which trusted proxies name the client."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"  # RFC 7239


class StoreAddress(enum.StrEnum):
    """How much of a client's address is stored."""

    NO = "no"
    CUT = "cut"  # to its network
    WHOLE = "whole"


IpNetwork: TypeAlias = IPv4Network | IPv6Network


def _read_list(parse: Callable[[str], object], form: str) -> BeforeValidator:
    """Return a validator that reads values with commas between them; a comma alone, which sets nothing, is refused."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not parts:
            raise ValueError(form)
        return tuple(map(parse, parts))

    return BeforeValidator(read)


class SinkHost:
    """One OpenSearch address: the URL without credentials, which travel beside it and appear in no repr."""

    def __init__(self, url: str, username: str | None = None, password: str | None = None) -> None:
        self.url = url
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return self.url


def _parse_sink_host(text: str) -> SinkHost:
    # urlsplit removes some of these in silence, even from a password.
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(SINK_HOST_FORM)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(SINK_HOST_FORM) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ValueError(SINK_HOST_FORM)
    # A "/" in a password that is not written as %2F: the rest of the password would be shown as part of the address.
    if "@" in parts.path:
        raise ValueError(SINK_HOST_FORM)
    if ":" in unquote(parts.username or ""):
        raise ValueError("a user name without a colon (RFC 7617, section 2)")
    _check_host_name(parts.hostname)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    return SinkHost(
        url,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


SinkHosts = Annotated[tuple[SinkHost, ...], NoDecode, _read_list(_parse_sink_host, SINK_HOST_FORM)]


def _check_host_name(name: str) -> None:
    """Refuse a name that no resolver can ever find (RFC 1035, section 2.3.4); `_` is common among containers."""
    try:
        if ":" in name or not name.strip("0123456789."):
            ip_address(name)
            return
        encoded = name.encode("idna").decode("ascii").removesuffix(".")
    except ValueError:
        raise ValueError(HOST_NAME_FORM) from None
    if len(encoded) > HOST_NAME_CHARS_MAX or not re.fullmatch(r"[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63})*", encoded):
        raise ValueError(HOST_NAME_FORM)


def _check_header_secret(value: SecretStr) -> SecretStr:
    # Other characters would not arrive unchanged, and a line break could add a header line.
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("visible ASCII characters without spaces, and without the word ApiKey or Bearer before them")
    return value


HeaderSecret = Annotated[SecretStr, AfterValidator(_check_header_secret)]


def _check_pipeline(name: str) -> str:
    # OpenSearch would take more, and takes `_none` for no pipeline at all.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,511}", name):
        raise ValueError(PIPELINE_FORM)
    return name


PipelineName = Annotated[str, AfterValidator(_check_pipeline)]


def check_token_key(key: str) -> None:
    """Check that tokens can be signed and verified with a key.

    Raises:
        ValueError: they cannot. The text says which form a key has, and shows nothing of this one.
    """
    with warnings.catch_warnings():
        # The log warns of a short key; it is no reason not to start.
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        try:
            jwt.decode(jwt.encode({}, key, algorithm="HS256"), key, algorithms=["HS256"])
        except (jwt.PyJWTError, ValueError):
            # The library's own text may show a part of the key.
            raise ValueError(KEY_FORM) from None


def _check_token_secret(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    check_token_key(key)
    # If blanks were cut off in silence, clients that sign with them would be refused; if kept, all the others.
    if key != key.strip():
        raise ValueError("a key without blanks or line breaks at its ends, the same wherever tokens are signed with it")
    return value


TokenSecret = Annotated[SecretStr, AfterValidator(_check_token_secret)]


def _parse_database_url(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    location, _, options = value.partition("?")
    match = re.fullmatch(r"sqlite:(?://)?(?P<path>.+)", location)
    path = Path(re.sub(r"^/+", "/", match["path"] if match else ""))
    # A database in memory would lose events. Forebay always reads, writes and creates, and ignores the mode.
    if path.name in ("", "..") or ":memory:" in location or options not in ("", "mode=rwc", "mode=rw"):
        raise ValueError("a file such as sqlite://sqlite3.db or sqlite:///var/lib/forebay/spool.db")
    return path


DatabasePath = Annotated[Path, NoDecode, BeforeValidator(_parse_database_url)]


def read_origin(text: str) -> str:
    """Return an origin as a browser writes it: small letters, and no port that is the usual one.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(ORIGIN_FORM) from error
    if not parts.scheme or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or "@" in text:
        raise ValueError(ORIGIN_FORM)
    _check_host_name(parts.hostname)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    return f"{parts.scheme}://{host}{'' if port in (None, USUAL_PORTS.get(parts.scheme)) else f':{port}'}"


def _read_origin_or_every(text: str) -> str:
    return text if text == EVERY_ORIGIN else read_origin(text)


OriginList = Annotated[tuple[str, ...], NoDecode, _read_list(_read_origin_or_every, ORIGIN_FORM)]


def _check_path(path: str) -> str:
    # A browser makes something else of `.` and `..`.
    if not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+", path) or path.startswith(OWN_PATHS):
        raise ValueError(PATH_FORM)
    return path


PathList = Annotated[tuple[str, ...], NoDecode, _read_list(_check_path, PATH_FORM)]


def _parse_network(text: str) -> IpNetwork:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(PROXIES_FORM) from None
    if isinstance(network, IPv6Network) and network.subnet_of(IPV4_MAPPED):
        network = IPv4Network((network.network_address.packed[-4:], network.prefixlen - IPV4_MAPPED.prefixlen))
    # If all are trusted, every client may name any address.
    if network.prefixlen == 0:
        raise ValueError(PROXIES_FORM)
    return network


NetworkList = Annotated[tuple[IpNetwork, ...], NoDecode, _read_list(_parse_network, PROXIES_FORM)]


def _check_month(value: str) -> str:
    # The times that are compared with it begin in 1970.
    if not re.fullmatch(r"(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])", value):
        raise ValueError("a month from 1970-01 on, such as 2024-01")
    return value


Month = Annotated[str, AfterValidator(_check_month)]
