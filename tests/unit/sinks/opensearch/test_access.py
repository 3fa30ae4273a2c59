"""Credentials and certificates for OpenSearch come from the settings; wrong files and missing packages get one line."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import SettingsError
from forebay.setting_values import SinkHost
from forebay.settings import Settings
from forebay.sinks.opensearch.access import make_access
from forebay.sinks.selection import make_sink
from testbed.servers.certificates import Authority

URL = "https://one:9200"


def settings_for(url: str = URL, **settings: Any) -> Settings:
    return Settings(OPEN_SEARCH_DNS=url, _env_file=None, **settings)


def authorization(settings: Settings) -> list[str | None]:
    access = make_access(settings)
    return [access.headers(host).get("Authorization") for host in access.hosts]


def test_each_host_has_its_own_user() -> None:
    shown = authorization(settings_for("https://a:p%C3%A4@one,https://b@two,https://three"))
    assert shown == [
        f"Basic {base64.b64encode('a:pä'.encode()).decode()}",
        f"Basic {base64.b64encode(b'b:').decode()}",
        None,
    ]


def test_a_key_or_token_is_for_every_host() -> None:
    url = "https://one,https://two"
    assert authorization(settings_for(url, open_search_api_key="a=")) == ["ApiKey a="] * 2
    assert authorization(settings_for(url, open_search_bearer="b.c")) == ["Bearer b.c"] * 2


def test_no_secret_shows_in_a_repr() -> None:
    assert "hunter2" not in repr(make_access(settings_for(open_search_api_key="hunter2")))
    assert "hunter2" not in repr(make_access(settings_for("https://admin:hunter2@one")))


def test_without_files_the_systems_authorities_are_trusted() -> None:
    assert make_access(settings_for()).tls is None


def test_with_files_certificates_and_names_are_still_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.sign("client")
    tls = make_access(
        settings_for(
            open_search_ca_file=authority.file,
            open_search_cert_file=ours.certificate,
            open_search_key_file=ours.key,
        )
    ).tls
    assert tls is not None
    assert tls.check_hostname
    assert tls.verify_mode.name == "CERT_REQUIRED"
    # Of the system's authorities none is left.
    assert len(tls.get_ca_certs()) == 1


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = Authority(tmp_path)
    good, other, locked = authority.sign("good"), authority.sign("other"), authority.sign("locked", password=b"x")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    return {
        "good": good.certificate,
        "good key": good.key,
        "other key": other.key,
        "locked": locked.certificate,
        "locked key": locked.key,
        "text": text,
        "missing": tmp_path / "missing.pem",
        "folder": tmp_path,
    }


@pytest.mark.parametrize("authorities", ["text", "missing", "folder", "good key"])
def test_a_file_of_authorities_that_cannot_be_used_is_named(files: dict[str, Path], authorities: str) -> None:
    with pytest.raises(SettingsError, match=r"^FOREBAY_OPEN_SEARCH_CA_FILE: ") as raised:
        make_access(settings_for(open_search_ca_file=files[authorities]))
    assert str(files[authorities]) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        ("missing", "good key"),
        ("good", "missing"),
        ("good", "other key"),
        ("text", "good key"),
        ("good", "text"),
        ("good key", "good"),
        ("locked", "locked key"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_with_its_key(
    files: dict[str, Path], certificate: str, key: str
) -> None:
    with pytest.raises(SettingsError, match=r"^FOREBAY_OPEN_SEARCH_CERT_FILE: ") as raised:
        make_access(settings_for(open_search_cert_file=files[certificate], open_search_key_file=files[key]))
    said = str(raised.value)
    assert len(said.splitlines()) == 1
    assert f"{files[certificate]} with FOREBAY_OPEN_SEARCH_KEY_FILE {files[key]}" in said


def test_a_missing_package_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(SettingsError, match=r"^FOREBAY_OPEN_SEARCH_AWS_REGION: .*pip install 'forebay\[aws\]'$"):
        make_sink(settings_for(open_search_aws_region="eu-west-1"))
    # And nobody else needs it.
    assert make_access(settings_for()).hosts[0].url == SinkHost(URL).url
