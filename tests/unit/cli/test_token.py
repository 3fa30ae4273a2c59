"""A token that is printed is one that the server takes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from forebay.tokens.claims import Scope
from forebay.tokens.provider import make_own_provider
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
    ],
)
def test_token_that_no_server_would_take_is_a_wrong_use(run: Run, arguments: list[str]) -> None:
    code, out, err = run("token", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert arguments[0] in err
