"""The files that deploy Forebay, checked without a container engine: read, or run against a stand-in for docker."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dotenv import dotenv_values

from forebay.settings import SECRET_CHARS_MIN, Settings, variable_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SHELL = shutil.which("sh") or "/bin/sh"
SECRET = "correct-horse-battery-staple-correct-horse"
SHUTDOWN_TIMEOUT_S = Settings.model_fields["shutdown_timeout_s"].default

# Says nothing of its own but what it was told to, and writes down how it was called.
DOCKER = """
import json, os, sys
args = sys.argv[1:]
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(json.dumps(args) + "\\n")
if os.environ["FAKE_FAILS"] and " ".join(args).startswith(os.environ["FAKE_FAILS"]):
    sys.exit(1)
if args[:2] == ["container", "inspect"]:
    if "--format" in args:
        print(os.environ["FAKE_STATE"])
    elif not os.environ["FAKE_RUNNING"]:
        sys.exit(1)
"""


# -- Dockerfile and .dockerignore


def stages() -> list[list[tuple[str, str]]]:
    """Return the Dockerfile's instructions, each as its word and what follows, by stage."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, logical):
        word, _, value = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, value.strip()))
    return found


def final(word: str) -> list[str]:
    return [value for name, value in stages()[-1] if name == word]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for value in final("ENV") for pair in shlex.split(value))


def health_check() -> list[str]:
    (value,) = final("HEALTHCHECK")
    options, _, command = value.partition("CMD ")
    assert "--interval=" in options
    argv: list[str] = json.loads(command)
    assert argv[0] == "python"
    return [sys.executable, *argv[1:]]


def test_the_image_runs_as_one_fixed_user_who_is_not_root() -> None:
    (user,) = final("USER")
    match = re.fullmatch(r"(\d+):(\d+)", user)
    assert match is not None, "in numbers"
    assert "0" not in match.groups()
    made = " ".join(final("RUN"))
    assert f"useradd --uid {match[1]} --gid {match[2]} " in made
    assert f"groupadd --gid {match[2]} " in made


def test_all_that_pip_installs_is_held_by_a_lock() -> None:
    commands = [
        command
        for stage in stages()
        for word, value in stage
        if word == "RUN"
        for command in value.split("&&")
        if re.search(r"\bpip\b.*\b(install|wheel)\b", command)
    ]
    locked = [command for command in commands if "--require-hashes --only-binary :all:" in command]
    offline = [command for command in commands if "--no-index" in command and "--no-deps" in command]
    assert sorted(locked + offline) == sorted(commands)
    locks = [word for command in locked for option, word in pairwise(command.split()) if option == "-r"]
    assert locks == ["requirements/run.lock", "requirements/build.lock"]
    assert all((ROOT / lock).is_file() for lock in locks)


def test_the_last_stage_installs_nothing_and_only_copies_from_the_first() -> None:
    assert not re.search(r"\b(pip|apt|apt-get|curl|wget)\b", " ".join(final("RUN")))
    assert final("COPY")
    assert all(value.startswith("--from=build ") for value in final("COPY"))


def test_the_spool_is_on_the_volume_whether_the_database_is_named_absolutely_or_not() -> None:
    assert final("VOLUME") == ["/data"]
    assert final("WORKDIR") == ["/data"]
    database = image_environment()["DATABASE_URL"]
    assert Settings(DATABASE_URL=database).database_url == Path("/data/forebay.db")


def test_the_image_starts_the_server_and_ends_it_with_the_signal_that_it_finishes_on() -> None:
    (entrypoint,), (arguments,) = final("ENTRYPOINT"), final("CMD")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(entrypoint) == ["forebay"]
    assert "forebay" in scripts
    assert json.loads(arguments) == ["serve"]
    assert final("STOPSIGNAL") == ["SIGTERM"]
    assert final("EXPOSE") == [str(Settings.model_fields["server_port"].default)]
    assert image_environment()["PYTHONUNBUFFERED"] == "1"


def test_only_what_the_dockerfile_copies_goes_to_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = [
        source
        for stage in stages()
        for word, value in stage
        if word == "COPY" and not value.startswith("--from=")
        for source in value.split()[:-1]
    ]
    assert sorted(line.removeprefix("!") for line in lines if line.startswith("!")) == sorted(copied)
    assert all((ROOT / source).exists() for source in copied)


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=[200, 503])
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    handler = type("Handler", (_Health,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield request.param, server.server_port
        server.shutdown()
        thread.join()


def test_the_health_check_follows_the_answer_past_any_proxy(answering: tuple[int, int]) -> None:
    status, port = answering
    # Port 9 of the loopback, where nothing listens, would be asked if a proxy were.
    environment = {"SERVER_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(health_check(), env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == (0 if status == 200 else 1)


def test_the_health_check_fails_where_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        environment = {"SERVER_PORT": str(taken.getsockname()[1])}
        done = subprocess.run(health_check(), env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == 1


@pytest.mark.parametrize("environment", [{}, {"SERVER_PORT": ""}])
def test_the_health_check_asks_the_default_port_where_none_is_set(environment: dict[str, str]) -> None:
    python, option, code = health_check()
    told = "import urllib.request as r; r.OpenerDirector.open = lambda self, url, timeout: print(url);"
    done = subprocess.run([python, option, told + code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "http://127.0.0.1:3000/health/live\n"


# -- deploy.sh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployed:
    """What came of one run of deploy.sh."""

    code: int
    output: str
    calls: list[list[str]]

    @property
    def started(self) -> list[str]:
        """The arguments of the run that stays."""
        (args,) = [call for call in self.calls if call[:2] == ["run", "--detach"]]
        return args

    @property
    def verbs(self) -> list[str]:
        return [" ".join(call[:2]) if call[0] in {"run", "container"} else call[0] for call in self.calls]

    @property
    def refusal(self) -> str:
        """The one line of a run that failed by a decision of the script's own."""
        assert self.code == 1
        (line,) = self.output.splitlines()
        assert line.startswith("deploy.sh: ")
        return line


@dataclasses.dataclass(frozen=True)
class Deployment:
    """deploy.sh in a folder of its own, with a stand-in for docker first on PATH."""

    folder: Path

    def run(
        self,
        env_file: str | None = None,
        *,
        fails: str = "",
        running: bool = False,
        state: str = "healthy 0",
        environment: dict[str, str] | None = None,
    ) -> Deployed:
        calls = self.folder / "calls"
        calls.write_text("")
        if env_file is not None:
            (self.folder / "project" / ".env").write_text(env_file)
        done = subprocess.run(
            [SHELL, self.folder / "project" / "deploy.sh"],
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "FAKE_CALLS": str(calls),
                "FAKE_FAILS": fails,
                "FAKE_RUNNING": "yes" if running else "",
                "FAKE_STATE": state,
                **(environment or {}),
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        recorded = [json.loads(line) for line in calls.read_text().splitlines()]
        return Deployed(code=done.returncode, output=done.stdout, calls=recorded)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    for name in ("bin", "project"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "deploy.sh", tmp_path / "project")
    program = tmp_path / "bin" / "docker.py"
    program.write_text(DOCKER)
    docker = tmp_path / "bin" / "docker"
    docker.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {shlex.quote(str(program))} "$@"\n')
    docker.chmod(0o755)
    return Deployment(tmp_path)


def test_deploy_is_in_the_language_of_sh() -> None:
    done = subprocess.run([SHELL, "-n", ROOT / "deploy.sh"], capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


def test_deploy_builds_the_image_and_runs_it_within_the_limits_on_a_named_volume(deployment: Deployment) -> None:
    done = deployment.run()
    assert (done.code, done.output) == (0, "Forebay is up: http://localhost:3000 (docker logs forebay)\n")
    assert done.verbs == ["info", "build", "run --rm", "container inspect", "run --detach", "container inspect"]
    assert ["build", "--tag", "forebay", "."] in done.calls
    pairs = list(pairwise(done.started))
    assert ("--cpus", "0.5") in pairs
    assert ("--memory", "512m") in pairs
    assert ("--restart", "unless-stopped") in pairs
    assert ("--publish", "3000:3000") in pairs
    assert ("--volume", f"forebay-data:{final('VOLUME')[0]}") in pairs
    assert ("--env", f"DATABASE_URL={image_environment()['DATABASE_URL']}") in pairs
    assert done.started[-1] == "forebay"


def test_deploy_hands_over_the_env_file_where_there_is_one(deployment: Deployment) -> None:
    assert "--env-file" not in deployment.run().started
    assert ("--env-file", ".env") in pairwise(deployment.run("SERVER_ENVIRONMENT=local\n").started)


@pytest.mark.parametrize(
    ("env_file", "environment", "port"),
    [
        ("SERVER_PORT=4000\n", {}, "4000"),
        ("SERVER_PORT=4000\r\n", {}, "4000"),
        ("SERVER_PORT=4000\nSERVER_PORT=4001\n", {}, "4001"),
        ("SERVER_PORT=4000\n", {"SERVER_PORT": "5000"}, "5000"),
        ("SERVER_PORT=4000\n", {"SERVER_PORT": ""}, "4000"),
        ("SERVER_PORT=\n", {}, "3000"),
    ],
)
def test_the_published_port_is_the_one_that_the_server_listens_on(
    deployment: Deployment, env_file: str, environment: dict[str, str], port: str
) -> None:
    pairs = list(pairwise(deployment.run(env_file, environment=environment).started))
    assert ("--publish", f"{port}:{port}") in pairs
    assert ("--env", f"SERVER_PORT={port}") in pairs


@pytest.mark.parametrize("port", ["0", "080", "65536", "100000", "http"])
def test_deploy_refuses_a_port_that_cannot_be_published(deployment: Deployment, port: str) -> None:
    done = deployment.run(f"SERVER_PORT={port}\n")
    assert "SERVER_PORT" in done.refusal
    assert done.verbs == ["info"]


@pytest.mark.parametrize(
    ("env_file", "deadline_s"), [("", SHUTDOWN_TIMEOUT_S), ("FOREBAY_SHUTDOWN_TIMEOUT_S=45.5\n", 45.5)]
)
def test_docker_kills_only_after_the_servers_own_deadline(
    deployment: Deployment, env_file: str, deadline_s: float
) -> None:
    (timeout,) = [value for option, value in pairwise(deployment.run(env_file).started) if option == "--stop-timeout"]
    assert int(timeout) >= deadline_s + 5


def test_deploy_stops_the_old_container_before_it_starts_the_new(deployment: Deployment) -> None:
    done = deployment.run(running=True)
    assert done.verbs[1:-1] == ["build", "run --rm", "container inspect", "stop", "rm", "run --detach"]
    # No time of its own: the old container's, which was set above its deadline, holds.
    assert ["stop", "forebay"] in done.calls


@pytest.mark.parametrize("fails", ["build", "run --rm"])
def test_the_old_container_stays_where_the_new_image_cannot_be_used(deployment: Deployment, fails: str) -> None:
    done = deployment.run(running=True, fails=fails)
    assert "still runs" in done.refusal
    assert done.verbs[-1] == fails


def test_a_container_that_cannot_be_stopped_is_not_joined_by_a_second(deployment: Deployment) -> None:
    done = deployment.run(running=True, fails="stop")
    assert "could not be stopped" in done.refusal
    assert done.verbs[-1] == "stop"


@pytest.mark.parametrize("state", ["starting 1", "unhealthy 0", "healthy 3"])
def test_deploy_fails_where_the_container_does_not_stay_up(deployment: Deployment, state: str) -> None:
    assert "docker logs forebay" in deployment.run(state=state).refusal


@pytest.mark.parametrize(
    "fails", ["", "info", "build", "run --rm", "stop", "rm", "run --detach", "container inspect --format"]
)
@pytest.mark.parametrize("in_file", [True, False])
def test_deploy_shows_no_secret_and_puts_none_among_arguments(
    deployment: Deployment, fails: str, *, in_file: bool
) -> None:
    settings = {
        "SERVER_ENVIRONMENT": "production",
        "JWT_SECRET": SECRET,
        "OPEN_SEARCH_DNS": f"https://forebay:{SECRET}@search:9200",
    }
    env_file = "".join(f"{name}={value}\n" for name, value in settings.items()) if in_file else None
    done = deployment.run(env_file, running=True, fails=fails, environment={} if in_file else settings)
    assert done.code == (1 if fails else 0)
    assert done.output
    assert SECRET not in done.output
    assert SECRET not in json.dumps(done.calls)


def test_settings_of_the_environment_reach_the_container_by_name(deployment: Deployment) -> None:
    settings = {"JWT_SECRET": SECRET, "OPEN_SEARCH_DNS": "", "FOREBAY_ACK": "memory", "FOREBAY_HOST": "127.0.0.1"}
    named = [value for option, value in pairwise(deployment.run(environment=settings).started) if option == "--env"]
    assert {"JWT_SECRET", "FOREBAY_ACK", "FOREBAY_HOST=0.0.0.0"} <= set(named)
    assert not {"OPEN_SEARCH_DNS", "FOREBAY_HOST"} & set(named)


@pytest.mark.parametrize("env_file", ["SERVER_ENVIRONMENT=production\n", "SERVER_ENVIRONMENT=prod\nJWT_SECRET=\n"])
def test_deploy_asks_for_a_secret_outside_a_local_environment(deployment: Deployment, env_file: str) -> None:
    done = deployment.run(env_file)
    assert "JWT_SECRET is not set" in done.refusal
    assert done.verbs == ["info"]


@pytest.mark.parametrize(
    "line",
    [
        f'JWT_SECRET="{SECRET}"',
        f"JWT_SECRET='{SECRET}'",
        f"JWT_SECRET={SECRET} # mine",
        f"JWT_SECRET={SECRET} ",
        f"JWT_SECRET= {SECRET}",
        f"JWT_SECRET: {SECRET}",
        f"export JWT_SECRET={SECRET}",
        f"={SECRET}",
    ],
)
def test_deploy_names_the_line_that_docker_would_read_otherwise(deployment: Deployment, line: str) -> None:
    done = deployment.run(f"# settings\n\n{line}\n")
    assert ".env, line 3:" in done.refusal
    assert SECRET not in done.output
    assert done.verbs == ["info"]


def test_deploy_takes_what_docker_and_forebay_read_alike(deployment: Deployment) -> None:
    assert deployment.run(f"JWT_SECRET={SECRET}${{x}}#$\n").code == 0


def test_deploy_says_that_there_is_no_docker(deployment: Deployment) -> None:
    shutil.rmtree(deployment.folder / "bin")
    done = deployment.run(environment={"PATH": str(deployment.folder / "bin")})
    assert "docker is not installed" in done.refusal


def test_deploy_says_that_the_engine_does_not_answer(deployment: Deployment) -> None:
    done = deployment.run(fails="info")
    assert "engine does not answer" in done.refusal


@pytest.mark.parametrize(
    ("environment", "code", "shown"),
    [({}, 0, ""), ({"SERVER_PORT": "http", "JWT_SECRET": SECRET}, 1, "SERVER_PORT: 'http' is not allowed")],
)
def test_what_is_tried_first_in_the_new_image_is_whether_its_settings_are_allowed(
    deployment: Deployment, environment: dict[str, str], code: int, shown: str
) -> None:
    (args,) = [call for call in deployment.run().calls if call[:2] == ["run", "--rm"]]
    assert ("--entrypoint", "python") in pairwise(args)
    command = [sys.executable, *args[args.index("-c") :]]
    environment = {"PYTHONPATH": str(ROOT / "src"), **environment}
    done = subprocess.run(
        command, env=environment, cwd=deployment.folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert done.stderr.startswith(shown)
    assert len(done.stderr.splitlines()) == code


# -- .env.example


def test_the_example_reads_the_same_for_docker_and_for_forebay(deployment: Deployment) -> None:
    text = (ROOT / ".env.example").read_text()
    as_docker = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert dict(dotenv_values(ROOT / ".env.example")) == as_docker
    assert deployment.run(text).code == 0


def test_the_example_explains_each_setting_and_holds_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = {variable_name(field): field for field in Settings.model_fields}
    for name in known:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    example = dotenv_values(ROOT / ".env.example")
    users = {"OPEN_SEARCH_DNS", "SERVER_PORT", "JWT_SECRET", "SERVER_ENVIRONMENT", "DATABASE_URL"}
    assert users < example.keys() <= known.keys()
    assert Settings(_env_file=ROOT / ".env.example") == Settings()
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(above.startswith("# ") for above, line in pairwise(lines) if line.partition("=")[0] in example)
    assert f"{SECRET_CHARS_MIN} characters" in "\n".join(lines)


# -- compose.yaml: read by line, since no YAML parser is among the dependencies


def service(name: str) -> list[str]:
    """Return the lines of one service, without indent and comments."""
    lines = [line for line in (ROOT / "compose.yaml").read_text().splitlines() if not line.lstrip().startswith("#")]
    start = lines.index(f"  {name}:") + 1
    inside = []
    for line in filter(None, lines[start:]):
        if not line.startswith("    "):
            break
        inside.append(line.strip())
    return inside


def test_compose_gives_forebay_the_limits_of_deploy_and_its_volume() -> None:
    lines = service("forebay")
    assert "cpus: 0.5" in lines
    assert "mem_limit: 512m" in lines
    assert "- forebay-data:/data" in lines
    assert f"DATABASE_URL: {image_environment()['DATABASE_URL']}" in lines
    assert "\nvolumes:\n  forebay-data:\n" in (ROOT / "compose.yaml").read_text()


def test_compose_starts_forebay_whether_opensearch_is_healthy_or_not() -> None:
    lines = service("forebay")
    assert lines[lines.index("depends_on:") + 1] == "- opensearch"
    assert not any(line.startswith("condition:") for line in lines)


def test_compose_kills_only_after_the_servers_own_deadline() -> None:
    (grace,) = [line for line in service("forebay") if line.startswith("stop_grace_period: ")]
    assert int(grace.removeprefix("stop_grace_period: ").removesuffix("s")) >= SHUTDOWN_TIMEOUT_S + 5


def test_the_opensearch_of_the_trial_has_no_password_and_so_no_other_machine_reaches_it() -> None:
    lines = service("opensearch")
    assert 'DISABLE_SECURITY_PLUGIN: "true"' in lines
    published = lines[lines.index("ports:") + 1 : lines.index("volumes:")]
    assert published
    assert all(line.startswith('- "127.0.0.1:') for line in published)
    assert "healthcheck:" in lines


# -- LICENSE


def test_the_licence_is_the_one_that_the_package_names_in_full() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
