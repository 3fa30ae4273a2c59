"""The addresses of OpenSearch and our credentials, made from the settings in this one place."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field

from forebay.errors import SettingsError
from forebay.setting_values import SinkHost
from forebay.settings import Settings, variable_name
from forebay.sinks.opensearch.signing import Signer


@dataclass(frozen=True, kw_only=True)
class Access:
    """The addresses, credentials and certificates for a connection to OpenSearch.

    Attributes:
        hosts: the addresses, each with its user and password, if it has some.
        authorization: the header's value for every host, instead of users and passwords.
        tls: the authorities to trust and our certificate; by default the system's authorities and none.
        signer: signs each request for AWS.
    """

    hosts: tuple[SinkHost, ...]
    authorization: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    signer: Signer | None = None

    def headers(self, host: SinkHost) -> dict[str, str]:
        """Return the header lines with our credentials for a host."""
        if self.authorization is not None:
            return {"Authorization": self.authorization}
        if host.username is None:
            return {}
        # OpenSearch reads it as UTF-8, as RFC 7617, section 2.1, recommends.
        user = base64.b64encode(f"{host.username}:{host.password or ''}".encode())
        return {"Authorization": f"Basic {user.decode()}"}


def make_access(settings: Settings) -> Access:
    """Return the access that the settings describe.

    Raises:
        SettingsError: a certificate's file cannot be used, or a package is missing.
    """
    api_key, bearer = settings.open_search_api_key, settings.open_search_bearer
    authorization = None
    if api_key is not None:
        authorization = f"ApiKey {api_key.get_secret_value()}"
    elif bearer is not None:
        authorization = f"Bearer {bearer.get_secret_value()}"
    region = settings.open_search_aws_region
    return Access(
        hosts=settings.open_search_dns,
        authorization=authorization,
        tls=_make_tls(settings),
        signer=None if region is None else Signer(region, settings.open_search_aws_service),
    )


def _make_tls(settings: Settings) -> ssl.SSLContext | None:
    authorities, certificate = settings.open_search_ca_file, settings.open_search_cert_file
    if authorities is None and certificate is None:
        return None
    try:
        # It trusts the system's authorities only if no others are named.
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise _wrong_file("open_search_ca_file", authorities, error) from None
    if certificate is not None:
        try:
            # Without a password OpenSSL would ask the terminal for that of a key which has one.
            context.load_cert_chain(certificate, settings.open_search_key_file, password="")
        except OSError as error:
            names = f"{certificate} with {variable_name('open_search_key_file')} {settings.open_search_key_file}"
            raise _wrong_file("open_search_cert_file", names, error) from None
    return context


def _wrong_file(field_name: str, path: object, error: OSError) -> SettingsError:
    # OpenSSL's own words are for its developers.
    in_it = f"not PEM, not a pair, or a password on it ({error.strerror})" if isinstance(error, ssl.SSLError) else ""
    reason = in_it or error.strerror
    return SettingsError(f"{variable_name(field_name)}: {path} cannot be used: {reason}")
