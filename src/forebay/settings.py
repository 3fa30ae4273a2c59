"""Every setting: one class, read from the environment or from `.env`."""

from __future__ import annotations

import difflib
import enum
import os
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import jwt
from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.sources.utils import parse_env_vars

from forebay.errors import SettingsError
from forebay.model import Ack, LogFormat

MIB = 1024 * 1024
SECRET_VARIABLES = frozenset(
    {"JWT_SECRET", "OPEN_SEARCH_DNS", "FOREBAY_OPEN_SEARCH_API_KEY", "FOREBAY_OPEN_SEARCH_BEARER"}
)
SECRET_CHARS_MIN = 32
"""HS256 wants a key of at least the hash's 256 bits (RFC 7518, section 3.2)."""

DAY_S = 86_400
HOST_NAME_CHARS_MAX = 253
KEY_FORM = "a secret text for HS256, and no PEM, SSH or DER key or certificate"
HOST_NAME_FORM = "a host whose name has 1 to 63 letters, digits, - and _ between dots, and 253 characters at the most"
SINK_HOST_FORM = "an address such as http://localhost:9200 or https://user:password@host:9200, several with commas"


class AwsService(enum.StrEnum):
    """Which of Amazon's services OpenSearch is, as its signatures name it."""

    ES = "es"  # OpenSearch Service
    AOSS = "aoss"  # OpenSearch Serverless


class SinkHost:
    """One OpenSearch address: the URL without credentials, which travel beside it and appear in no repr."""

    def __init__(self, url: str, username: str | None = None, password: str | None = None) -> None:
        self.url = url
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return self.url


def _parse_sink_hosts(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    hosts = tuple(_parse_sink_host(part.strip()) for part in value.split(",") if part.strip())
    if not hosts:
        raise ValueError(SINK_HOST_FORM)
    return hosts


def _parse_sink_host(text: str) -> SinkHost:
    # Some of these would be left out of the address in silence, also out of a password.
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(SINK_HOST_FORM)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(SINK_HOST_FORM) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ValueError(SINK_HOST_FORM)
    # A "/" in a password that is not written as %2F; what follows it would be shown as a part of the address.
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


def _check_host_name(name: str) -> None:
    """Refuse what no resolver could find, now or ever (RFC 1035, section 2.3.4); `_` is common among containers."""
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
    # Anything else would not arrive as it is, and a line break could add a header line.
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("visible ASCII characters without spaces, and without the word ApiKey or Bearer before them")
    return value


HeaderSecret = Annotated[SecretStr, AfterValidator(_check_header_secret)]


def check_token_key(key: str) -> None:
    """See to it that tokens can be signed and verified with a key.

    Raises:
        ValueError: they cannot; it says which key could, and shows nothing of this one.
    """
    with warnings.catch_warnings():
        # A short key is said in the log, and no reason not to start.
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        try:
            jwt.decode(jwt.encode({}, key, algorithm="HS256"), key, algorithms=["HS256"])
        except (jwt.PyJWTError, ValueError):
            # Not the library's words, which may show a part of the key.
            raise ValueError(KEY_FORM) from None


def _check_token_secret(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    check_token_key(key)
    # Cut off in silence, they would leave out those who sign with them, and kept those who do not.
    if key != key.strip():
        raise ValueError("a key without blanks or line breaks at its ends, the same wherever tokens are signed with it")
    return value


def _parse_database_url(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    location, _, options = value.partition("?")
    match = re.fullmatch(r"sqlite:(?://)?(?P<path>.+)", location)
    path = Path(re.sub(r"^/+", "/", match["path"] if match else ""))
    # A database in memory would lose events, and Forebay always reads, writes and creates.
    if path.name in ("", "..") or ":memory:" in location or options not in ("", "mode=rwc", "mode=rw"):
        raise ValueError("a file such as sqlite://sqlite3.db or sqlite:///var/lib/forebay/spool.db")
    return path


def _check_month(value: str) -> str:
    # From 1970 on: the times that are compared with it begin there.
    if not re.fullmatch(r"(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])", value):
        raise ValueError("a month from 1970-01 on, such as 2024-01")
    return value


class _EnvFile(DotEnvSettingsSource):
    """`.env` as it is written: a `${…}` in a password is a part of it, and stands for no other variable."""

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        values = dotenv_values(file_path, encoding="utf-8", interpolate=False)
        return parse_env_vars(values, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str)


DIVIDED = "divided among the workers"
"""Marks a limit of the whole server, of which each worker gets its share."""


class Settings(BaseSettings):
    """What can be set, with its default. Sizes are bytes, times are seconds.

    Raises:
        pydantic.ValidationError: a value is not allowed; `load_settings` turns it into a `SettingsError`.
    """

    model_config = SettingsConfigDict(
        env_prefix="FOREBAY_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    open_search_dns: Annotated[tuple[SinkHost, ...], NoDecode, BeforeValidator(_parse_sink_hosts)] = Field(
        (), validation_alias="OPEN_SEARCH_DNS", description="OpenSearch, one URL or several; unset: the embedded store"
    )
    server_port: int = Field(
        3000, ge=0, le=65535, validation_alias="SERVER_PORT", description="port to listen on; 0 takes a free one"
    )
    jwt_secret: Annotated[SecretStr, AfterValidator(_check_token_secret)] | None = Field(
        None, validation_alias="JWT_SECRET", description="key of the tokens (HS256); made for you when local"
    )
    server_environment: str = Field(
        "local",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        validation_alias="SERVER_ENVIRONMENT",
        description="part of the index name events_{environment}_{year-month}",
    )
    database_url: Annotated[Path, NoDecode, BeforeValidator(_parse_database_url)] = Field(
        Path("sqlite3.db"), validation_alias="DATABASE_URL", description="the spool, sqlite://PATH"
    )

    open_search_api_key: HeaderSecret | None = Field(None, description="sent to OpenSearch as Authorization: ApiKey")
    open_search_bearer: HeaderSecret | None = Field(None, description="sent to OpenSearch as Authorization: Bearer")
    open_search_ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust instead of the system's"
    )
    open_search_cert_file: Path | None = Field(None, description="PEM file of the certificate to show to OpenSearch")
    open_search_key_file: Path | None = Field(None, description="PEM file of its key, without a password")
    open_search_aws_region: str | None = Field(
        None, pattern=r"^[a-z0-9-]+$", description="sign requests for AWS in this region (needs forebay[aws])"
    )
    open_search_aws_service: AwsService = Field(
        AwsService.ES, description="what to sign for: es (OpenSearch Service) or aoss (Serverless)"
    )
    open_search_auto_id: bool = Field(
        default=False, description="send events without _id, to services that refuse it: at least once, not exactly"
    )

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a server in a container
    workers: int = Field(1, ge=1, le=64, description="processes that share the port, each with a spool of its own")
    ack: Ack = Field(Ack.DISK, description="when to answer: disk (after the sync) or memory (from the channel)")
    require_log_id: bool = Field(default=False, description="refuse an event without log_id instead of assigning one")
    oldest_month: Annotated[str, AfterValidator(_check_month)] = Field(
        "2024-01", description="from which month on an event is in the index of its own month, however late it comes"
    )

    body_bytes_max: int = Field(2 * MIB, ge=1024, description="largest request body (413)")
    batch_events_max: int = Field(10_000, ge=1, description="most events in one batch (413)")
    header_bytes_max: int = Field(16 * 1024, ge=1024, description="largest request head (431)")
    request_timeout_s: float = Field(30, gt=0, le=DAY_S, description="time for a whole request to arrive (408)")
    connections_max: Annotated[int, DIVIDED] = Field(
        10_000, ge=1, description="connections at once (idle ones go first, then 503)"
    )
    in_hand_bytes_max: Annotated[int, DIVIDED] = Field(
        64 * MIB, ge=1024, description="bytes of requests that are not answered yet, all together (503 beyond)"
    )
    keep_alive_s: float = Field(75, gt=0, le=DAY_S, description="how long an idle connection is kept")

    channel_events_max: Annotated[int, DIVIDED] = Field(
        100_000, ge=1, description="events waiting in memory; more wait in the spool"
    )
    channel_bytes_max: Annotated[int, DIVIDED] = Field(96 * MIB, ge=MIB, description="their bytes")

    bulk_events_max: int = Field(1_000, ge=1, description="events in one bulk")
    bulk_bytes_max: int = Field(5 * MIB, ge=64 * 1024, description="bytes of one bulk")
    bulk_interval_s: float = Field(10, gt=0, le=DAY_S, description="longest wait of an event for its bulk to fill")
    bulk_workers: Annotated[int, DIVIDED] = Field(10, ge=1, le=100, description="bulks in flight at once")
    bulk_timeout_s: float = Field(30, gt=0, le=DAY_S, description="time for the sink to answer a bulk")

    retry_interval_s: float = Field(60, gt=0, le=DAY_S, description="how often pending events are redelivered")
    retry_delay_s_min: float = Field(0.5, gt=0, le=DAY_S, description="first back-off after the sink failed")
    retry_delay_s_max: float = Field(30, gt=0, le=DAY_S, description="longest back-off")

    spool_bytes_max: Annotated[int, DIVIDED] = Field(
        10 * 1024 * MIB, ge=MIB, description="bytes of events and dead letters in the spool (503 beyond)"
    )
    dead_retention_days: int = Field(
        30, ge=1, le=36_500, description="how long dead letters are kept, and a day in which it runs"
    )
    dead_export_dir: Path | None = Field(
        None, description="folder for dead letters past that, one NDJSON file a day; unset: they are deleted"
    )

    index_template: bool = Field(default=True, description="put the index template in place, again if it is gone")
    metrics_open: bool = Field(default=False, description="serve /metrics without a token")
    shutdown_timeout_s: float = Field(
        20, gt=0, le=DAY_S, description="time to deliver what is in the channel at shutdown"
    )
    log_format: LogFormat = Field(LogFormat.AUTO, description="json, text, or auto: text on a terminal")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - a folder of files, which none is set for
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `.env` in a way of our own."""
        env_file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return init_settings, env_settings, _EnvFile(settings_cls, env_file)

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: dict[str, Any]) -> dict[str, Any]:
        # A file ends with a line break, and no setting does; the one that could is a key, which has a check of its own.
        # Nothing but blanks stays, so that it is refused and not taken for a setting that was left out.
        return {
            name: value.strip() or value if isinstance(value, str) and name != "JWT_SECRET" else value
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.jwt_secret is None and self.server_environment != "local":
            raise ValueError("JWT_SECRET: not set; it may be left out only with SERVER_ENVIRONMENT=local")
        if self.retry_delay_s_min > self.retry_delay_s_max:
            raise ValueError("FOREBAY_RETRY_DELAY_S_MIN: must not exceed FOREBAY_RETRY_DELAY_S_MAX")
        # A clock that is far behind is no reason to refuse the default.
        if "oldest_month" in self.model_fields_set and self.oldest_month > f"{datetime.now(UTC):%Y-%m}":
            raise ValueError("FOREBAY_OLDEST_MONTH: must not lie in the future")
        self._check_credentials()
        if self.body_bytes_max > self.in_hand_bytes_max:
            raise ValueError("FOREBAY_IN_HAND_BYTES_MAX: must not be less than FOREBAY_BODY_BYTES_MAX")
        return self

    def _check_credentials(self) -> None:
        shown = {
            "user in OPEN_SEARCH_DNS": any(host.username is not None for host in self.open_search_dns),
            "FOREBAY_OPEN_SEARCH_API_KEY": self.open_search_api_key is not None,
            "FOREBAY_OPEN_SEARCH_BEARER": self.open_search_bearer is not None,
            "FOREBAY_OPEN_SEARCH_AWS_REGION": self.open_search_aws_region is not None,
        }
        given = [name for name, is_given in shown.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: must not be set together with {given[0]}; one request shows one of them")
        if "open_search_aws_service" in self.model_fields_set and self.open_search_aws_region is None:
            raise ValueError("FOREBAY_OPEN_SEARCH_AWS_SERVICE: needs FOREBAY_OPEN_SEARCH_AWS_REGION")
        files = {
            "FOREBAY_OPEN_SEARCH_CA_FILE": self.open_search_ca_file,
            "FOREBAY_OPEN_SEARCH_CERT_FILE": self.open_search_cert_file,
            "FOREBAY_OPEN_SEARCH_KEY_FILE": self.open_search_key_file,
        }
        if (self.open_search_cert_file is None) is not (self.open_search_key_file is None):
            raise ValueError("FOREBAY_OPEN_SEARCH_CERT_FILE: goes with FOREBAY_OPEN_SEARCH_KEY_FILE; one is not set")
        given += [name for name, path in files.items() if path is not None]
        if given and not self.open_search_dns:
            raise ValueError(f"{given[0]}: needs OPEN_SEARCH_DNS")
        if any(files.values()) and not all(host.url.startswith("https://") for host in self.open_search_dns):
            raise ValueError(f"{given[-1]}: needs https:// in OPEN_SEARCH_DNS")

    @property
    def oldest_month_start(self) -> datetime:
        """When the oldest month begins whose events are in an index of their own month."""
        return datetime.strptime(self.oldest_month, "%Y-%m").replace(tzinfo=UTC)

    @property
    def store_path(self) -> Path:
        """Where the embedded store lives: beside the spool."""
        return self.database_url.with_name(f"{self.database_url.stem}-events.db")

    @property
    def secret_path(self) -> Path:
        """Where the secret is kept that was made because none was set."""
        return self.database_url.with_name(f"{self.database_url.name}.secret")


def variable_name(field: str) -> str:
    """Return the environment variable that sets a field."""
    return str(Settings.model_fields[field].validation_alias or f"FOREBAY_{field.upper()}")


def load_settings() -> Settings:
    """Read the settings from the environment and `.env`.

    Raises:
        SettingsError: one line for each variable that is not allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(item) for item in error.errors())) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f".env: not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise SettingsError(f".env: cannot be read: {error.strerror}") from None


def _explain(item: Any) -> str:
    message = re.sub(r"^(Value error, |Input should be |String should )", "", str(item["msg"]))
    if not item["loc"]:
        return message
    location = str(item["loc"][0])
    name = variable_name(location) if location in Settings.model_fields else location
    # A URL of any other kind may carry a password, somewhere.
    shown = re.sub(r"(?<!sqlite:)(?<!/)//.*", "//***'", repr(item["input"]))
    return f"{name}: {'the value' if name in SECRET_VARIABLES else shown} is not allowed; expected: {message}"


def unknown_variables() -> list[tuple[str, str | None]]:
    """Return `FOREBAY_…` variables, also of `.env`, that set nothing, each with the nearest name that would.

    Kubernetes puts `FOREBAY_PORT…` and `FOREBAY_SERVICE_…` into every container beside a service of that name; those
    are left out.
    """
    known = {variable_name(field) for field in Settings.model_fields}
    foreign = ("FOREBAY_PORT", "FOREBAY_SERVICE_", "FOREBAY_TEST_")
    # In the file, small letters set the same.
    names = {*os.environ, *(name.upper() for name in _EnvFile(Settings).env_vars)}
    strange = {name for name in names if name.startswith("FOREBAY_") and name not in known}
    return [
        (name, next(iter(difflib.get_close_matches(name, known, n=1)), None))
        for name in sorted(strange)
        if not name.startswith(foreign)
    ]
