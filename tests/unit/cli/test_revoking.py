"""Commands that revoke tokens: none is shown, and none is stored."""

from __future__ import annotations

import hashlib
import io
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import pytest

from unit.cli.running import Folder, Run

KEY = "a secret that is long enough for HS256"
JTI = "7d9f4a4e-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def denials(folder: Folder) -> Path:
    folder.spool_path.touch()
    return folder.path / "sqlite3.db.denials"


def make_token(**claims: Any) -> str:
    return jwt.encode({"sub": "alice", "exp": int(time.time()) + 3_600} | claims, KEY, "HS256")


def digest(token: str) -> str:
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


def test_a_whole_token_is_stored_as_its_digest_and_never_shown(run: Run, denials: Path) -> None:
    token = make_token()
    outputs = [run("token", "revoke", given) for given in (token, f"Bearer {token}", f" {token}\n")]
    outputs += [run("token", "list"), run("token", "list", "--json"), run("deny", "list"), run("doctor")]
    outputs += [run("token", "unrevoke", token), run("token", "unrevoke", token)]
    assert [output.code for output in outputs] == [0, 0, 0, 0, 0, 0, 1, 0, 1]
    for _, out, err in outputs:
        assert not any(part in out + err + denials.read_text() for part in token.split("."))
    assert outputs[-1].err == f"forebay: the token {digest(token)} is not in the list; nothing was changed\n"
    (listed,) = outputs[4].json_lines()
    assert (listed["kind"], listed["value"]) == ("token", digest(token))


def test_a_token_is_the_same_however_its_signature_is_written(run: Run) -> None:
    token = make_token()
    signed, _, signature = token.rpartition(".")
    run("token", "revoke", f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}")
    assert run("token", "unrevoke", token).code == 0


def test_a_whole_token_leaves_the_list_a_day_after_its_end(run: Run) -> None:
    end = int(time.time()) + 90 * 86_400
    run("token", "revoke", make_token(exp=end))
    (listed,) = run("token", "list", "--json").json_lines()
    assert datetime.fromisoformat(listed["until"]).timestamp() == end + 86_400


@pytest.mark.parametrize("exp", [None, "soon", 1e300, -1e300, float("nan"), [], True])
def test_a_token_without_a_usable_end_is_revoked_too(run: Run, exp: Any) -> None:
    run("token", "revoke", token := make_token(exp=exp))
    (listed,) = run("token", "list", "--json").json_lines()
    assert listed["value"] == digest(token)


def test_an_end_of_ones_own_is_taken_for_that_of_the_token(run: Run) -> None:
    run("token", "revoke", make_token(), "--until", "2100-01-01", "--reason", "lost")
    (listed,) = run("token", "list", "--json").json_lines()
    assert (listed["until"], listed["reason"]) == ("2100-01-01T00:00:00.000Z", "lost")


def test_tokens_come_from_standard_input_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [make_token(jti=str(number)) for number in range(3)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(tokens) + "\n\n"))
    assert run("token", "revoke", "-", JTI).code == 0
    listed = [line["value"] for line in run("token", "list", "--json").json_lines()]
    assert listed == [JTI, *(digest(token) for token in reversed(tokens))]


@pytest.mark.parametrize(("text", "said"), [("\n \n", "is empty"), ("x" * (1024 * 1024 + 1), "more than 1048576")])
def test_standard_input_without_tokens_or_with_too_much_is_wrong_use(
    run: Run, monkeypatch: pytest.MonkeyPatch, denials: Path, text: str, said: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, err = run("token", "revoke", "-")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not denials.exists()


def test_a_jti_and_a_digest_are_stored_as_they_are(run: Run) -> None:
    run("token", "revoke", JTI, "ab" * 32, "a.b.c")
    assert [line["value"] for line in run("token", "list", "--json").json_lines()] == ["a.b.c", "ab" * 32, JTI]


def test_all_tokens_of_users_are_revoked_and_count_again(run: Run) -> None:
    assert run("token", "revoke", "--sub", "alice", "--sub", "bob").code == 0
    assert [line["kind"] for line in run("token", "list", "--json").json_lines()] == ["sub", "sub"]
    assert run("token", "unrevoke", "--sub", "alice").code == 0
    assert [line["value"] for line in run("deny", "list", "--json").json_lines()] == ["bob"]


def test_the_list_of_tokens_leaves_out_devices_and_addresses(run: Run) -> None:
    run("deny", "device", "phone")
    run("token", "revoke", JTI)
    assert [line["value"] for line in run("token", "list", "--json").json_lines()] == [JTI]
    assert run("token", "list").out.splitlines()[-1] == "1 of 2 entries of the denial list"


@pytest.mark.parametrize("cut", [slice(-60), slice(30), slice(None, None, 2)])
def test_a_token_that_was_cut_off_is_neither_stored_nor_shown(run: Run, denials: Path, cut: slice) -> None:
    token = make_token()[cut] if cut.step is None else make_token().replace(".", " ", 1)
    code, out, err = run("token", "revoke", JTI, token)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "was it cut off?" in err
    assert token[:20] not in err
    assert not denials.exists()


@pytest.mark.parametrize("command", ["revoke", "unrevoke"])
def test_nothing_named_is_wrong_use(run: Run, command: str) -> None:
    code, out, err = run("token", command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--sub" in err


def test_no_token_is_needed_to_be_made_for_these_commands(run: Run, folder: Folder) -> None:
    run("token", "revoke", JTI)
    assert not folder.path.joinpath("sqlite3.db.secret").exists()
    assert json.loads(folder.path.joinpath("sqlite3.db.denials").read_text())["value"] == JTI


def test_the_jti_of_a_token_that_we_make_is_never_taken_for_an_option(run: Run) -> None:
    made = [run("token").out.strip() for _ in range(20)]
    names = [jwt.decode(token, options={"verify_signature": False})["jti"] for token in made]
    assert all(name.isalnum() for name in names)
    assert run("token", "revoke", *names).code == 0
    assert [line["value"] for line in run("token", "list", "--json").json_lines()] == names[::-1]
