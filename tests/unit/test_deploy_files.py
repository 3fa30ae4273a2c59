"""The files that deploy Forebay, checked without a container engine: read, or run with a stand-in for docker."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from dotenv import dotenv_values

from forebay.setting_values import SecretAlgorithm
from forebay.settings import Settings, variable_name

ROOT = Path(__file__).parents[2]
SECRET = "correct-horse-battery-staple-correct-horse"
SHUTDOWN_TIMEOUT_S = Settings.model_fields["shutdown_timeout_s"].default

# Writes down its arguments, and fails at one command if it is told to.
DOCKER = r"""#!/bin/sh
printf '%s\0' "$*" >>"$DOCKER_CALLS"
case $* in
"$DOCKER_FAILS"*) exit 1 ;;
"container inspect --format"*) echo "${DOCKER_STATE:-healthy 0}" ;;
esac
"""


# -- Dockerfile and .dockerignore


def stages() -> list[list[tuple[str, str]]]:
    """Return the Dockerfile's instructions, each as its word and its arguments, by stage."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
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
    argv: list[str] = json.loads(value.partition("CMD ")[2])
    assert argv[0] == "python"
    return [sys.executable, *argv[1:]]


def test_the_image_runs_as_one_fixed_user_who_is_not_root() -> None:
    (user,) = final("USER")
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", user)
    assert match is not None, "in numbers"
    made = " ".join(final("RUN"))
    assert f"useradd --uid {match[1]} --gid {match[2]} " in made
    assert f"groupadd --gid {match[2]} " in made


def test_all_that_pip_installs_is_held_by_a_lock() -> None:
    runs = [value for stage in stages() for word, value in stage if word == "RUN"]
    commands = [
        command
        for value in runs
        for command in value.split("&&")
        if re.search(r"\bpip\b.*\b(install|wheel)\b", command)
    ]
    locked = [command for command in commands if "--require-hashes --only-binary :all:" in command]
    offline = [command for command in commands if "--no-index" in command and "--no-deps" in command]
    assert sorted(locked + offline) == sorted(commands)
    locks = [word for command in locked for option, word in pairwise(command.split()) if option == "-r"]
    assert locks == ["requirements/run.lock", "requirements/build.lock"]


def test_the_last_stage_installs_nothing_and_only_copies_from_the_first() -> None:
    assert not re.search(r"\b(pip|apt|apt-get|curl|wget)\b", " ".join(final("RUN")))
    assert final("COPY")
    assert all(value.startswith("--from=build ") for value in final("COPY"))


def test_the_image_starts_the_server_with_its_spool_on_the_volume_and_ends_it_in_order() -> None:
    assert (final("ENTRYPOINT"), final("CMD")) == (['["forebay"]'], ['["serve"]'])
    assert final("STOPSIGNAL") == ["SIGTERM"]
    assert final("EXPOSE") == [str(Settings.model_fields["server_port"].default)]
    assert final("VOLUME") == final("WORKDIR") == ["/data"]
    assert Settings(DATABASE_URL=image_environment()["DATABASE_URL"]).database_url == Path("/data/forebay.db")


def test_only_files_that_the_dockerfile_copies_go_to_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copies = [value for word, value in stages()[0] if word == "COPY" and not value.startswith("--from=")]
    copied = [source for value in copies for source in value.split()[:-1]]
    assert lines[0] == "*"
    assert sorted(line for line in lines if line[0] == "!") == sorted(f"!{source}" for source in copied)
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_follows_the_answer_past_any_proxy(status: int, code: int) -> None:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        # Nothing listens on port 9, which would be asked if a proxy were.
        environment = {"SERVER_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}
        done = subprocess.run(health_check(), env=environment, capture_output=True, check=False, timeout=30)
        server.shutdown()
        thread.join()
    assert done.returncode == code


# -- deploy.sh


class Deployed(NamedTuple):
    """A run of deploy.sh: its exit code, its output, and the arguments of each call of docker."""

    code: int
    output: str
    calls: list[str]

    @property
    def started(self) -> str:
        (call,) = [call for call in self.calls if call.startswith("run --detach ")]
        return f"{call} "


def deploy(folder: Path, env_file: str = "", fails: str = "nothing", **environment: str) -> Deployed:
    """Run deploy.sh in a folder of its own, with the stand-in first on PATH."""
    project, programs, calls = folder / "project", folder / "bin", folder / "calls"
    for made in (project, programs):
        made.mkdir()
    shutil.copy(ROOT / "deploy.sh", project)
    if env_file:
        (project / ".env").write_text(env_file)
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    told = {"PATH": path, "DOCKER_CALLS": str(calls), "DOCKER_FAILS": fails, **environment}
    command = [shutil.which("sh") or "/bin/sh", str(project / "deploy.sh")]
    done = subprocess.run(command, env=told, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    seen = calls.read_text().split("\0")[:-1] if calls.exists() else []
    return Deployed(done.returncode, done.stdout + done.stderr, seen)


def test_deploy_builds_the_image_and_replaces_the_container_within_limits_on_a_named_volume(tmp_path: Path) -> None:
    done = deploy(tmp_path)
    assert (done.code, done.output) == (0, "Forebay is up: http://localhost:3000 (docker logs forebay)\n")
    verbs = [" ".join(call.split()[:2]) for call in done.calls]
    # `stop` is given no time: the time of the old container holds, which was set above its deadline.
    assert verbs == [
        *("info", "build --tag", "run --rm", "container inspect"),
        *("stop forebay", "rm forebay", "run --detach", "container inspect"),
    ]
    for option in (
        *(
            "--cpus 0.5",
            "--memory 512m",
            "--restart unless-stopped",
            "--publish 3000:3000",
            "--env FOREBAY_HOST=0.0.0.0",
        ),
        f"--volume forebay-data:{final('VOLUME')[0]}",
        f"--env DATABASE_URL={image_environment()['DATABASE_URL']}",
    ):
        assert f" {option} " in done.started
    assert "--env-file" not in done.started
    assert done.started.endswith(" forebay ")


@pytest.mark.parametrize(
    ("env_file", "environment", "port"),
    [
        ("SERVER_PORT=4000\r\n", {}, "4000"),
        ("SERVER_PORT=4000\nSERVER_PORT=4001\n", {}, "4001"),
        ("SERVER_PORT=4000\n", {"SERVER_PORT": "5000"}, "5000"),
        ("SERVER_PORT=4000\n", {"SERVER_PORT": ""}, "4000"),
    ],
)
def test_the_published_port_is_the_one_that_the_server_listens_on(
    tmp_path: Path, env_file: str, environment: dict[str, str], port: str
) -> None:
    started = deploy(tmp_path, env_file, **environment).started
    assert f" --publish {port}:{port} " in started
    assert f" --env SERVER_PORT={port} " in started


@pytest.mark.parametrize("deadline_s", [SHUTDOWN_TIMEOUT_S, 45.5])
def test_docker_kills_only_after_the_deadline_of_the_server(tmp_path: Path, deadline_s: float) -> None:
    match = re.search(r"--stop-timeout (\d+) ", deploy(tmp_path, f"FOREBAY_SHUTDOWN_TIMEOUT_S={deadline_s}\n").started)
    assert match is not None
    assert int(match[1]) >= deadline_s + 5


@pytest.mark.parametrize(
    ("env_file", "words"),
    [
        ("SERVER_PORT=0\n", "SERVER_PORT"),
        ("SERVER_PORT=65536\n", "SERVER_PORT"),
        ("SERVER_PORT=http\n", "SERVER_PORT"),
        ("SERVER_ENVIRONMENT=production\n", "JWT_SECRET is not set"),
        ("SERVER_ENVIRONMENT=prod\nJWT_SECRET=\n", "JWT_SECRET is not set"),
        # Forebay and docker would read these lines differently.
        (f'# settings\n\nJWT_SECRET="{SECRET}"\n', ".env, line 3:"),
        (f"JWT_SECRET={SECRET} # mine\n", ".env, line 1:"),
        (f"JWT_SECRET= {SECRET}\n", ".env, line 1:"),
        (f"JWT_SECRET: {SECRET}\n", ".env, line 1:"),
        (f"export JWT_SECRET={SECRET}\n", ".env, line 1:"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_built(
    tmp_path: Path, env_file: str, words: str
) -> None:
    done = deploy(tmp_path, env_file)
    assert (done.code, done.calls) == (1, ["info"])
    assert words in done.output
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("info", "engine does not answer"),
        ("build", "still runs"),
        ("run --rm", "still runs"),
        ("stop", "could not be stopped"),
        ("rm", "could not be removed"),
        ("run --detach", "did not start"),
        ("container inspect --format", "does not stay up"),
    ],
)
def test_deploy_ends_at_the_first_step_that_fails_without_showing_a_secret(
    tmp_path: Path, fails: str, words: str
) -> None:
    done = deploy(tmp_path, fails=fails, JWT_SECRET=SECRET, OPEN_SEARCH_DNS=f"https://forebay:{SECRET}@search:9200")
    assert done.code == 1
    assert done.output.startswith("deploy.sh: ")
    assert words in done.output
    assert done.calls[-1].startswith(fails)
    assert SECRET not in done.output


@pytest.mark.parametrize("state", ["starting 1", "unhealthy 0", "healthy 3"])
def test_deploy_fails_if_the_container_does_not_stay_up(tmp_path: Path, state: str) -> None:
    done = deploy(tmp_path, DOCKER_STATE=state)
    assert done.code == 1
    assert f"({state}); see: docker logs forebay" in done.output


def test_settings_reach_the_container_by_name_or_by_file_and_never_as_an_argument(tmp_path: Path) -> None:
    settings = {"JWT_SECRET": SECRET, "OPEN_SEARCH_DNS": "", "FOREBAY_ACK": "memory", "FOREBAY_HOST": "127.0.0.1"}
    done = deploy(tmp_path, f"# a comment\nSERVER_ENVIRONMENT=production\nOTHER={SECRET}${{x}}#$\n", **settings)
    assert done.code == 0
    for option in ("--env JWT_SECRET", "--env FOREBAY_ACK", "--env-file .env"):
        assert f" {option} " in done.started
    assert "--env OPEN_SEARCH_DNS" not in done.started, "empty is not set"
    assert "--env FOREBAY_HOST " not in done.started, "the container listens on all of its addresses"
    assert SECRET not in done.output + " ".join(done.calls)


def test_deploy_says_if_there_is_no_docker(tmp_path: Path) -> None:
    assert "docker is not installed" in deploy(tmp_path, PATH=str(tmp_path / "nowhere")).output


def run_check(folder: Path, project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program that the new image is checked with, in a folder and with settings; errors are in its output."""
    (call,) = [call for call in deploy(folder).calls if call.startswith("run --rm ")]
    options, _, program = call.partition(" -c ")
    assert " --entrypoint python " in options
    return run([sys.executable, "-c", program], project, environment)


def run(command: list[str], project: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    told = {"PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(command, env=told, cwd=project, capture_output=True, text=True, check=False, timeout=60)


def read_files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder for a spool and for files of settings; one of them is no PEM, one package cannot be imported."""
    folder = tmp_path / "volume"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages" / "botocore.py").write_text("raise ImportError")
    (folder / "no.pem").write_text("no PEM")
    return folder


OPENSEARCH = {"OPEN_SEARCH_DNS": "https://127.0.0.1:9"}
PROVIDER = '{"issuer": "shop", "algorithms": ["RS256"], "pem_file": "%s"}'


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"SERVER_PORT": "http", "JWT_SECRET": SECRET}, "SERVER_PORT: 'http' is not allowed"),
        (OPENSEARCH | {"FOREBAY_OPEN_SEARCH_CA_FILE": "none.pem"}, "FOREBAY_OPEN_SEARCH_CA_FILE: "),
        (OPENSEARCH | {"FOREBAY_OPEN_SEARCH_CA_FILE": "no.pem"}, "FOREBAY_OPEN_SEARCH_CA_FILE: "),
        (
            OPENSEARCH | {"FOREBAY_OPEN_SEARCH_CERT_FILE": "none.pem", "FOREBAY_OPEN_SEARCH_KEY_FILE": "none.pem"},
            "FOREBAY_OPEN_SEARCH_CERT_FILE: ",
        ),
        (
            OPENSEARCH | {"FOREBAY_OPEN_SEARCH_AWS_REGION": "eu-west-1", "PYTHONPATH": f"packages:{ROOT / 'src'}"},
            "FOREBAY_OPEN_SEARCH_AWS_REGION: needs the package botocore",
        ),
        ({"FOREBAY_PROVIDERS": f"[{PROVIDER % 'none.pem'}]"}, "FOREBAY_PROVIDERS[0].pem_file: "),
        ({"FOREBAY_PROVIDERS": f"[{PROVIDER % 'no.pem'}]", "FOREBAY_WORKERS": "2"}, "FOREBAY_PROVIDERS[0].pem_file: "),
        ({"DATABASE_URL": "sqlite://damaged.db"}, "DATABASE_URL: the denial list damaged.db.denials "),
        ({"DATABASE_URL": "sqlite://keyless.db"}, "JWT_SECRET: not set, and keyless.db.secret holds no key"),
        ({"FOREBAY_WORKERS": "2", "TMPDIR": "long"}, "FOREBAY_WORKERS: several processes need a folder with a shorter"),
    ],
)
def test_the_new_image_refuses_in_the_check_what_it_refuses_at_its_start(
    tmp_path: Path, project: Path, environment: dict[str, str], shown: str
) -> None:
    (project / "damaged.db.denials").write_text("no entry")
    (project / "keyless.db.secret").write_text("")
    if environment.get("TMPDIR") == "long":
        environment = environment | {"TMPDIR": str(tmp_path / ("x" * 100))}
        Path(environment["TMPDIR"]).mkdir()

    checked = run_check(tmp_path, project, **environment)

    assert checked.returncode == 1
    assert checked.stderr.startswith(shown)
    assert len(checked.stderr.splitlines()) == 1
    serve = [sys.executable, "-c", "import forebay.cli as cli; raise SystemExit(cli.main(['serve']))"]
    started = run(serve, project, {"SERVER_PORT": "0", **environment})
    assert started.returncode == 2
    assert checked.stderr.strip() in started.stderr


@pytest.mark.parametrize("environment", [{}, OPENSEARCH, {"FOREBAY_WORKERS": "2"}])
def test_the_check_of_the_new_image_writes_nothing_and_needs_no_opensearch(
    tmp_path: Path, project: Path, environment: dict[str, str]
) -> None:
    shutil.rmtree(project / "packages")
    (project / "sqlite3.db").write_bytes(b"the spool of the old container")
    before = read_files(project)
    done = run_check(tmp_path, project, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_files(project) == before


def test_the_check_of_the_new_image_has_the_files_of_its_start_and_may_only_read_them(tmp_path: Path) -> None:
    done = deploy(tmp_path)
    (checked,) = [call for call in done.calls if call.startswith("run --rm ")]
    (mounted,) = re.findall(r" --volume (\S+) ", done.started)
    assert f" --volume {mounted}:ro " in checked


# -- .env.example


def test_the_example_reads_the_same_for_docker_and_for_forebay(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    as_docker = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert dict(dotenv_values(ROOT / ".env.example")) == as_docker
    assert deploy(tmp_path, text).code == 0


def test_the_example_explains_each_setting_and_holds_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = {variable_name(field) for field in Settings.model_fields}
    for name in known:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    example = dotenv_values(ROOT / ".env.example")
    users = {"OPEN_SEARCH_DNS", "SERVER_PORT", "JWT_SECRET", "SERVER_ENVIRONMENT", "DATABASE_URL"}
    assert users < example.keys() <= known
    assert Settings(_env_file=ROOT / ".env.example") == Settings()
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(above.startswith("# ") for above, line in pairwise(lines) if line.partition("=")[0] in example)
    assert f"{SecretAlgorithm.HS256.secret_chars_min} characters" in "\n".join(lines)


# -- compose.yaml: read by line, since no YAML parser is among the dependencies


def service(name: str) -> list[str]:
    """Return the lines of one service, without indent and comments."""
    text = re.sub(r"(?m)^ *#.*\n", "", (ROOT / "compose.yaml").read_text())
    (inside,) = re.findall(rf"(?m)^  {name}:\n((?:    .*\n|\n)+)", text)
    return [line.strip() for line in inside.splitlines() if line]


def test_compose_gives_forebay_the_limits_of_deploy_its_volume_and_time_to_end() -> None:
    lines = service("forebay")
    assert {"cpus: 0.5", "mem_limit: 512m", "- forebay-data:/data"} < set(lines)
    assert f"DATABASE_URL: {image_environment()['DATABASE_URL']}" in lines
    assert "\nvolumes:\n  forebay-data:\n" in (ROOT / "compose.yaml").read_text()
    (grace,) = [line for line in lines if line.startswith("stop_grace_period: ")]
    assert int(grace.removeprefix("stop_grace_period: ").removesuffix("s")) >= SHUTDOWN_TIMEOUT_S + 5


def test_compose_starts_forebay_whether_opensearch_is_healthy_or_not() -> None:
    lines = service("forebay")
    assert lines[lines.index("depends_on:") + 1] == "- opensearch"
    assert not any(line.startswith("condition:") for line in lines)


def test_the_opensearch_of_compose_has_no_password_so_no_other_machine_reaches_it() -> None:
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
