"""A token that is printed is one that the server takes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from forebay.settings import load_settings
from forebay.telemetry.counters import Counters
from forebay.tokens.claims import Scope
from forebay.tokens.provider import make_own_provider
from forebay.tokens.selection import make_verifier
from forebay.tokens.verifier import TokenVerifier
from unit.cli.running import Folder, Run

SECRET = "a secret that is long enough for HS256"


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_token_is_signed_with_jwt_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)

    code, out, err = run("token", "--sub", "alice", "--days", "7", "--scope", "events:read  admin")

    assert (code, err) == (0, "")
    now = time.time()
    found = claims(out.strip())
    assert found["scope"] == "events:read admin"
    assert now - 60 < found["iat"] <= now
    assert found["exp"] - found["iat"] == 7 * 86_400
    assert (
        TokenVerifier(make_own_provider([SECRET])).verify(f"Bearer {out.strip()}".encode(), Scope.ADMIN).user_id
        == "alice"
    )


def test_token_may_write_events_by_default(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)

    assert claims(run("token").out.strip())["scope"] == "events:write"


def test_local_token_is_signed_with_the_key_beside_the_spool(run: Run, folder: Folder) -> None:
    token = run("token").out.strip()

    secret = folder.path.joinpath("sqlite3.db.secret").read_text()
    assert TokenVerifier(make_own_provider([secret])).verify(f"Bearer {token}".encode(), Scope.WRITE).user_id == "demo"


def test_missing_secret_outside_a_local_environment_is_a_wrong_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_ENVIRONMENT", "production")

    code, out, err = run("token")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "JWT_SECRET: not set" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--days", "0"],
        ["--days", "1.5"],
        ["--days", "1000000000"],
        ["--sub", ""],
        ["--scope", ""],
        ["--scope", "evnts"],
        ["--minutes", "0"],
        ["--minutes", "5", "--days", "5"],
        ["--origin", "https://shop.example/path"],
        ["--origin", "shop.example"],
        ["--origin", "https://user@shop.example"],
        ["--origin", "null"],
        ["--origin", "*"],
        ["--origin", ""],
        ["--format", "evnt"],
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--rate", "-1"],
        ["--beacon"],
        ["--beacon", "--origin", "https://shop.example"],
        ["--beacon", "--origin", "https://shop.example", "--days", "1"],
        ["--beacon", "--minutes", "30"],
        ["--scope", "admin", "--beacon", "--origin", "https://shop.example", "--minutes", "30"],
        ["--scope", "events:write admin", "--beacon", "--origin", "https://shop.example", "--minutes", "30"],
    ],
)
def test_token_that_no_server_would_take_is_a_wrong_use(run: Run, arguments: list[str]) -> None:
    code, out, err = run("token", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert arguments[0] in err


def test_token_has_a_name_of_its_own_and_the_limits_that_are_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    plain, other = claims(run("token").out), claims(run("token").out)
    assert plain["jti"] != other["jti"]
    assert {"origins", "formats", "rate", "iss", "aud"}.isdisjoint(plain)

    origins = ["https://SHOP.example/", "http://localhost:8080", "http://[::1]:80"]
    options = [option for origin in origins for option in ("--origin", origin)]
    code, out, err = run("token", *options, "--format", "event", "--format", "lines", "--rate", "2.5")

    assert (code, err) == (0, "")
    found = claims(out)
    # As browsers write them.
    assert found["origins"] == ["https://shop.example", "http://localhost:8080", "http://[::1]"]
    assert (found["formats"], found["rate"]) == (["event", "lines"], 2.5)


def test_token_of_a_beacon_can_only_send_events_from_its_pages_for_some_minutes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    code, out, err = run("token", "--beacon", "--origin", "https://shop.example", "--minutes", "30")

    assert (code, err) == (0, "")
    found = claims(out)
    assert found["exp"] - found["iat"] == 30 * 60
    assert (found["origins"], found["scope"]) == (["https://shop.example"], "events:write")


def test_token_is_one_that_the_server_of_these_settings_takes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET * 2)
    monkeypatch.setenv("FOREBAY_JWT_ALGORITHM", "HS512")
    monkeypatch.setenv("FOREBAY_JWT_ISSUER", "us")
    monkeypatch.setenv("FOREBAY_JWT_AUDIENCE", "events")

    token = run("token", "--sub", "alice").out.strip().encode()

    verifier, _ = make_verifier(load_settings(), SECRET * 2, Counters())
    assert verifier.verify(b"Bearer " + token, Scope.WRITE).user_id == "alice"
    assert (claims(token.decode())["iss"], claims(token.decode())["aud"]) == ("us", "events")
