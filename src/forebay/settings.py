"""Every setting: one class, read from the environment or from `.env`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.sources.utils import parse_env_vars

from forebay.errors import SettingsError
from forebay.model import Ack
from forebay.provider_entry import ProviderEntry, parse_list
from forebay.setting_values import (
    DAY_S,
    AwsService,
    DatabasePath,
    ForwardedHeader,
    HeaderSecret,
    LogFormat,
    Month,
    NetworkList,
    OriginList,
    PathList,
    PipelineName,
    SecretAlgorithm,
    SinkHosts,
    StoreAddress,
    TokenSecret,
)

MIB = 1024 * 1024
SECRET_VARIABLES = frozenset(
    {
        "JWT_SECRET",
        "FOREBAY_JWT_SECRETS_OLD",
        "OPEN_SEARCH_DNS",
        "FOREBAY_OPEN_SEARCH_API_KEY",
        "FOREBAY_OPEN_SEARCH_BEARER",
    }
)


class _EnvFile(DotEnvSettingsSource):
    """Reads `.env` as it is written: `${…}` in a password is part of the password and stands for no variable."""

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        values = dotenv_values(file_path, encoding="utf-8", interpolate=False)
        return parse_env_vars(values, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str)


DIVIDED = "divided among the workers"
"""Marks a limit of the whole server, of which each worker gets its share."""


class Settings(BaseSettings):
    """All settings with their defaults. Sizes are in bytes, times in seconds.

    Raises:
        pydantic.ValidationError: a value is not allowed; `load_settings` turns it into a `SettingsError`.
    """

    model_config = SettingsConfigDict(
        env_prefix="FOREBAY_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # The text below a field is its description, and its row in docs/reference/settings.md.
        use_attribute_docstrings=True,
    )

    # Five that most users set; their names are those of the collector that this one replaces.

    open_search_dns: SinkHosts = Field((), validation_alias="OPEN_SEARCH_DNS")
    """Address of OpenSearch, `https://user:password@host:9200`; several with commas between them. Not set: events go to
    the embedded store."""

    server_port: int = Field(3000, ge=0, le=65535, validation_alias="SERVER_PORT")
    """Port to listen on; 0 takes a free one."""

    jwt_secret: TokenSecret | None = Field(None, validation_alias="JWT_SECRET")
    """Key of the tokens, at least 32 characters for HS256; the log warns of a shorter one. It may be left out only if
    `SERVER_ENVIRONMENT=local`: then a key is made and kept beside the spool."""

    server_environment: str = Field(
        "local", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", validation_alias="SERVER_ENVIRONMENT"
    )
    """Part of the index name, `events_{environment}_{year-month}`: up to 64 small letters, digits, `-` and `_`."""

    database_url: DatabasePath = Field(Path("sqlite3.db"), validation_alias="DATABASE_URL")
    """File of the spool. `sqlite://PATH` is relative to the working directory; `sqlite:///var/lib/forebay/spool.db` is
    an absolute path. It must be on a disk of the machine, not on a network file system."""

    # Tokens

    jwt_algorithm: SecretAlgorithm = SecretAlgorithm.HS256
    """Algorithm of the tokens that are signed with `JWT_SECRET`; HS384 needs 48 characters, HS512 64."""

    jwt_secrets_old: Annotated[tuple[TokenSecret, ...], NoDecode, BeforeValidator(parse_list)] = ()
    """Earlier values of `JWT_SECRET`, as a JSON array: tokens that were signed with them are still taken."""

    jwt_issuer: str | None = None
    """`iss` that a token needs that is signed with `JWT_SECRET`. Not set: any will do."""

    jwt_audience: str | None = None
    """`aud` that such a token needs. Not set: any will do."""

    jwt_leeway_s: float = Field(30, gt=0, le=DAY_S)
    """Seconds by which the clock that signs tokens may differ from ours, for `exp`, `nbf` and `iat`."""

    providers: Annotated[tuple[ProviderEntry, ...], NoDecode, BeforeValidator(parse_list)] = ()
    """Identity providers whose tokens are taken, too: a JSON array of objects ([members](#identity-providers))."""

    # Access to OpenSearch

    open_search_api_key: HeaderSecret | None = None
    """API key, sent to OpenSearch as `Authorization: ApiKey …`."""

    open_search_bearer: HeaderSecret | None = None
    """Bearer token, sent to OpenSearch as `Authorization: Bearer …`."""

    open_search_ca_file: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""

    open_search_cert_file: Path | None = None
    """PEM file of the client certificate to show to OpenSearch; goes with `FOREBAY_OPEN_SEARCH_KEY_FILE`."""

    open_search_key_file: Path | None = None
    """PEM file of the certificate's key, without a password."""

    open_search_aws_region: str | None = Field(None, pattern=r"^[a-z0-9-]+$")
    """AWS region for which requests are signed; needs `pip install 'forebay[aws]'`."""

    open_search_aws_service: AwsService = AwsService.ES
    """Service for which requests are signed: `es` (OpenSearch Service) or `aoss` (OpenSearch Serverless)."""

    open_search_auto_id: bool = False
    """Send events without `_id`, to services that refuse it. Events then arrive at least once, not exactly once."""

    open_search_pipeline: PipelineName | None = None
    """Ingest pipeline of OpenSearch through which all events go, by its name. It replaces an index's
    `default_pipeline`. Not set: none, or that of the index."""

    # Taking events

    host: str = "0.0.0.0"  # noqa: S104 - a server in a container
    """Address to listen on."""

    workers: int = Field(1, ge=1, le=64)
    """Processes that share the port, each with a spool of its own; for more events than one core takes."""

    ack: Ack = Ack.DISK
    """When to answer: `disk` (after the sync) or `memory` (once the event is in the channel). If the process is killed,
    events that were acknowledged from memory and are not delivered yet are lost."""

    require_log_id: bool = False
    """Refuse an event without `log_id` (400) instead of assigning one."""

    oldest_month: Month = "2024-01"
    """First month with an index of its own, however late its events come; an event of an earlier month is in the month
    in which it is received. Not in the future."""

    # Browsers

    cors_origins: OriginList = ()
    """Origins of the pages that may send, such as `https://shop.example`, with commas; `*` for every one. Not set: a
    page of another origin cannot send with a token in a header, and origins are not looked at."""

    paths_extra: PathList = ()
    """Paths that stand for `/events`, with commas, and with `/batch` behind each for `/events/batch`. Lists of blockers
    know the usual ones."""

    # Limits of requests and connections

    body_bytes_max: int = Field(2 * MIB, ge=1024)
    """Bytes of a request body. A larger one gets 413."""

    batch_events_max: int = Field(10_000, ge=1)
    """Events in one batch. A larger one gets 413."""

    header_bytes_max: int = Field(16 * 1024, ge=1024)
    """Bytes of a request head. A larger one gets 431."""

    request_timeout_s: float = Field(30, gt=0, le=DAY_S)
    """Seconds for a whole request to arrive. A slower one gets 408."""

    connections_max: Annotated[int, DIVIDED] = Field(10_000, ge=1)
    """Connections at once. Beyond it, the connection that is idle longest is closed for the new one; if none is idle,
    the new one gets 503."""

    in_hand_bytes_max: Annotated[int, DIVIDED] = Field(64 * MIB, ge=1024)
    """Bytes of all requests that are not answered yet, together. Beyond it, the slowest client gets 503."""

    keep_alive_s: float = Field(75, gt=0, le=DAY_S)
    """Seconds that an idle connection is kept open, also before its first request."""

    # How much, and from where

    token_rate_per_s: float | None = Field(None, ge=0.001, le=1_000_000)
    """Events a second of each token's `sub`; beyond it, 429. Each worker counts for itself, so with several workers as
    many times the limit may pass. A token with a rate of its own has that one instead. Not set: any number."""

    device_rate_per_s: float | None = Field(None, ge=0.001, le=1_000_000)
    """Events a second of each `Device-UUID`; beyond it, 429. Not set: any number."""

    address_rate_per_s: float | None = Field(None, ge=0.001, le=1_000_000)
    """Events a second of each address of clients, of IPv6 of each /64; beyond it, 429. Not set: any number."""

    rate_burst_s: float = Field(10, gt=0, le=DAY_S)
    """Seconds at these rates whose events may come at once. A batch is taken whole if there is room for one event, and
    the next request waits for the rest."""

    token_quota_per_day: int | None = Field(None, ge=1)
    """Events of each token's `sub` in a day (UTC); beyond it, 429 until midnight. They are counted in memory, anew
    after a restart. Not set: any number."""

    device_quota_per_day: int | None = Field(None, ge=1)
    """Events of each `Device-UUID` in a day, in the same way. Not set: any number."""

    address_quota_per_day: int | None = Field(None, ge=1)
    """Events of each address of clients in a day, in the same way. Not set: any number."""

    trusted_proxies: NetworkList = ()
    """Addresses and networks of proxies, with commas, whose word counts about the client's address. Not set: the
    client's address is that of the connection."""

    forwarded_header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR
    """Header field in which these proxies name the client: `x-forwarded-for` or `forwarded`. The other one is
    ignored."""

    proxy_protocol: bool = False
    """Connections from these proxies begin with a header of the PROXY protocol (version 1 or 2); needs
    `FOREBAY_TRUSTED_PROXIES`. Do not name this machine itself there, unless the proxy runs on it: the health check of
    the image and `forebay doctor` come from here, without a header."""

    store_address: StoreAddress = StoreAddress.NO
    """Store the client's address with each event: `no`, `cut` (to /24, of IPv6 to /48) or `whole`."""

    # Memory and bulks

    channel_events_max: Annotated[int, DIVIDED] = Field(100_000, ge=1)
    """Events that wait in memory. More of them wait in the spool, and clients are told `pending`."""

    channel_bytes_max: Annotated[int, DIVIDED] = Field(96 * MIB, ge=MIB)
    """Bytes of the events that wait in memory. More of them wait in the spool."""

    bulk_events_max: int = Field(1_000, ge=1)
    """Events in one bulk. A full bulk goes at once."""

    bulk_bytes_max: int = Field(5 * MIB, ge=64 * 1024)
    """Bytes of one bulk. A full bulk goes at once."""

    bulk_interval_s: float = Field(10, gt=0, le=DAY_S)
    """Seconds that an event waits for its bulk to fill; then the bulk goes as it is."""

    bulk_workers: Annotated[int, DIVIDED] = Field(10, ge=1, le=100)
    """Bulks in flight at once, at the most; there are fewer while OpenSearch takes no more."""

    bulk_timeout_s: float = Field(30, gt=0, le=DAY_S)
    """Seconds for OpenSearch to answer a bulk. After that the bulk has failed, and its events are pending."""

    # Redelivery

    retry_interval_s: float = Field(60, gt=0, le=DAY_S)
    """Seconds between two rounds of redelivery of pending events."""

    retry_delay_s_min: float = Field(0.5, gt=0, le=DAY_S)
    """Seconds of the first back-off after OpenSearch failed; each further one is longer."""

    retry_delay_s_max: float = Field(30, gt=0, le=DAY_S)
    """Seconds of the longest back-off."""

    # The spool and dead letters

    spool_bytes_max: Annotated[int, DIVIDED] = Field(10 * 1024 * MIB, ge=MIB)
    """Bytes of events and dead letters in the spool. Beyond it, clients get 503."""

    dead_retention_days: int = Field(30, ge=1, le=36_500)
    """Days that a dead letter is kept. It goes once it has been older for a day in which Forebay ran, so that a clock
    that is wrong for a while deletes none."""

    dead_export_dir: Path | None = None
    """Folder to which dead letters are written before they go, one NDJSON file a day for each worker. Not set: they are
    deleted."""

    # Operation

    index_template: bool = True
    """Put the index template in place, and again if OpenSearch comes back without it."""

    metrics_open: bool = False
    """Serve `/metrics` without a token."""

    shutdown_timeout_s: float = Field(20, gt=0, le=DAY_S)
    """Seconds to deliver the events in the channel at shutdown. After that, the rest waits in the spool."""

    log_format: LogFormat = LogFormat.AUTO
    """Form of the log: `json`, `text`, or `auto` (`text` on a terminal, else `json`)."""

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """Least level of the lines that are logged: `debug`, `info`, `warning` or `error`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no folder of secrets is set
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `.env` without replacing `${…}`."""
        env_file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return init_settings, env_settings, _EnvFile(settings_cls, env_file)

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: dict[str, Any]) -> dict[str, Any]:
        # A value from a file ends with a line break, and no setting does; the key has a check of its own.
        # A value of blanks alone stays, so that it is refused and not taken for one that was left out.
        return {
            name: value.strip() or value if isinstance(value, str) and name != "JWT_SECRET" else value
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def _check_combinations(self) -> Settings:
        if self.jwt_secret is None and self.server_environment != "local":
            raise ValueError("JWT_SECRET: not set; it may be left out only with SERVER_ENVIRONMENT=local")
        if self.retry_delay_s_min > self.retry_delay_s_max:
            raise ValueError("FOREBAY_RETRY_DELAY_S_MIN: must not exceed FOREBAY_RETRY_DELAY_S_MAX")
        # If the clock is far behind, the default is still allowed.
        if "oldest_month" in self.model_fields_set and self.oldest_month > f"{datetime.now(UTC):%Y-%m}":
            raise ValueError("FOREBAY_OLDEST_MONTH: must not lie in the future")
        issuers = [self.jwt_issuer, *(entry.issuer for entry in self.providers)]
        if len(set(issuers)) < len(issuers):
            raise ValueError(
                "FOREBAY_PROVIDERS: each needs an issuer of its own, which is not FOREBAY_JWT_ISSUER either"
            )
        self._check_credentials()
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("FOREBAY_PROXY_PROTOCOL: needs FOREBAY_TRUSTED_PROXIES")
        if self.body_bytes_max > self.in_hand_bytes_max:
            raise ValueError("FOREBAY_IN_HAND_BYTES_MAX: must not be less than FOREBAY_BODY_BYTES_MAX")
        return self

    def _check_credentials(self) -> None:
        shown = {
            "user in OPEN_SEARCH_DNS": any(host.username is not None for host in self.open_search_dns),
            "FOREBAY_OPEN_SEARCH_API_KEY": self.open_search_api_key,
            "FOREBAY_OPEN_SEARCH_BEARER": self.open_search_bearer,
            "FOREBAY_OPEN_SEARCH_AWS_REGION": self.open_search_aws_region,
        }
        files = {
            "FOREBAY_OPEN_SEARCH_CA_FILE": self.open_search_ca_file,
            "FOREBAY_OPEN_SEARCH_CERT_FILE": self.open_search_cert_file,
            "FOREBAY_OPEN_SEARCH_KEY_FILE": self.open_search_key_file,
        }
        given = [name for name, value in shown.items() if value]
        given_files = [name for name, path in files.items() if path]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: must not be set together with {given[0]}; one request shows one of them")
        if "open_search_aws_service" in self.model_fields_set and self.open_search_aws_region is None:
            raise ValueError("FOREBAY_OPEN_SEARCH_AWS_SERVICE: needs FOREBAY_OPEN_SEARCH_AWS_REGION")
        if (self.open_search_cert_file is None) is not (self.open_search_key_file is None):
            raise ValueError("FOREBAY_OPEN_SEARCH_CERT_FILE: goes with FOREBAY_OPEN_SEARCH_KEY_FILE; one is not set")
        if (given or given_files) and not self.open_search_dns:
            raise ValueError(f"{(given + given_files)[0]}: needs OPEN_SEARCH_DNS")
        if given_files and not all(host.url.startswith("https://") for host in self.open_search_dns):
            raise ValueError(f"{given_files[-1]}: needs https:// in OPEN_SEARCH_DNS")

    @property
    def oldest_month_start(self) -> datetime:
        """Return the start of the first month with an index of its own."""
        return datetime.strptime(self.oldest_month, "%Y-%m").replace(tzinfo=UTC)

    @property
    def store_path(self) -> Path:
        """Return the file of the embedded store, beside the spool."""
        return self.database_url.with_name(f"{self.database_url.stem}-events.db")

    @property
    def secret_path(self) -> Path:
        """Return the file of the key that is made if none is set, beside the spool."""
        return self.database_url.with_name(f"{self.database_url.name}.secret")

    @property
    def denials_path(self) -> Path:
        """Return the file of the denial list, beside the spool."""
        return self.database_url.with_name(f"{self.database_url.name}.denials")


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
    location, *members = map(str, item["loc"])
    variable = variable_name(location) if location in Settings.model_fields else location
    # A member of a JSON value: FOREBAY_PROVIDERS[0].issuer
    name = variable + "".join(f"[{member}]" if member.isdecimal() else f".{member}" for member in members)
    if item["type"] in ("missing", "extra_forbidden"):
        return f"{name}: {'is missing' if item['type'] == 'missing' else 'there is no such member'}"
    # A URL of any other kind may contain a password.
    shown = re.sub(r"(?<!sqlite:)(?<!/)//.*", "//***'", repr(item["input"]))
    return f"{name}: {'the value' if variable in SECRET_VARIABLES else shown} is not allowed; expected: {message}"


def unknown_variables() -> list[tuple[str, str | None]]:
    """Return the `FOREBAY_…` variables that set nothing, also those of `.env`, each with the nearest known name.

    Kubernetes puts `FOREBAY_PORT…` and `FOREBAY_SERVICE_…` into every container beside a service of that name; those
    are left out.
    """
    known = {variable_name(field) for field in Settings.model_fields}
    foreign = ("FOREBAY_PORT", "FOREBAY_SERVICE_", "FOREBAY_TEST_")
    # In the file, small letters count too.
    names = {*os.environ, *(name.upper() for name in _EnvFile(Settings).env_vars)} - known
    return [
        (name, next(iter(difflib.get_close_matches(name, known, n=1)), None))
        for name in sorted(names)
        if name.startswith("FOREBAY_") and not name.startswith(foreign)
    ]
