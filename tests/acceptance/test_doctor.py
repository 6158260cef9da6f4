"""`gridnode doctor` and `gridnode engine`, as people run them."""

import asyncio
import http.server
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import docker
import pytest

from gridnode.doctor.limits import (
    LABEL,
    judge_cpu_limit,
    judge_memory_limit,
    probe_image,
    probe_spec,
    run_probe,
)
from gridnode.runtimes.docker_engine import Engine
from tests.support.docker_engine import DockerEngine
from tests.support.fixtures import require
from tests.support.processes import free_port
from tests.support.programs import TOKEN, HubProgram
from tests.support.redis_server import RedisServer

NAMES = [
    *("configuration", "hub", "token", "clock", "engine", "abilities", "architecture", "disk"),
    *("cpu_limit", "memory_limit", "isolation", "memory"),
]
NEEDS_ENGINE = ("abilities", "architecture", "disk", "cpu_limit", "memory_limit", "isolation")
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
DOCTOR_ENDS_WITHIN_S = 60.0


class Machine:
    """A machine with its gridnode.toml, and what the doctor says of it."""

    def __init__(self, folder: Path) -> None:
        self.config_path = folder / "gridnode.toml"
        self.environment = {"IDM_GRIDCORE_CONFIG": str(folder)}

    def configure(self, hub_url: str, *more: str, token: str = TOKEN) -> None:
        lines = [f'server_url = "{hub_url}"', f'token = "{token}"', "container_memory = 64", *more]
        self.config_path.write_text("\n".join(lines) + "\n")

    def run(
        self, *arguments: str, clock: str | None = None, under: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        faked = ["faketime", "--exclude-monotonic", "-f", clock] if clock else []
        return subprocess.run(
            [*under, *faked, sys.executable, "-m", "gridnode", *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=DOCTOR_ENDS_WITHIN_S,
            check=False,
        )

    def examine(
        self, *, clock: str | None = None, under: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """The checks by name."""
        done = self.run("doctor", "--output", "json", clock=clock, under=under)
        assert done.stderr == ""
        report = json.loads(done.stdout)
        checks: dict[str, dict[str, Any]] = {check["name"]: check for check in report["checks"]}
        problems = [check for check in checks.values() if check["status"] == "problem"]
        assert report["schema"] == 1
        assert (report["ok"], done.returncode) == (not problems, 1 if problems else 0)
        for check in checks.values():
            assert bool(check["fix"]) == (check["status"] in ("warning", "problem")), check
        return checks


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Without Docker, unless a test names one."""
    machine = Machine(tmp_path)
    machine.environment["DOCKER_HOST"] = f"unix://{tmp_path}/no.sock"
    return machine


@pytest.fixture
def docker_machine(machine: Machine, docker_engine: DockerEngine) -> Machine:
    machine.environment["DOCKER_HOST"] = docker_engine.host
    return machine


def statuses(checks: dict[str, dict[str, Any]], *names: str) -> list[str]:
    return [checks[name]["status"] for name in names]


def probe_things(client: docker.APIClient) -> tuple[list[str], list[str]]:
    filters = {"label": LABEL}
    containers = client.containers(all=True, filters=filters)
    return [c["Id"] for c in containers], [i["Id"] for i in client.images(filters=filters)]


def test_all_is_well_on_a_machine_that_is_set_up(docker_machine: Machine, hub: HubProgram) -> None:
    docker_machine.configure(hub.url)
    checks = docker_machine.examine()
    assert list(checks) == NAMES
    # What the disk of the machine that runs the tests has is not ours to say.
    assert {name: check for name, check in checks.items() if check["status"] != "ok"}.keys() <= {
        "disk"
    }
    assert hub.nodes() == []


def test_the_probe_leaves_one_image_which_it_uses_again(
    docker_machine: Machine, docker_client: docker.APIClient, hub: HubProgram
) -> None:
    docker_machine.configure(hub.url)
    docker_machine.examine()
    containers, images = probe_things(docker_client)
    assert (containers, len(images)) == ([], 1)
    docker_machine.examine()
    assert probe_things(docker_client) == ([], images)


def test_what_a_container_can_reach_is_tried_and_nothing_of_that_is_left(
    docker_machine: Machine, docker_client: docker.APIClient, hub: HubProgram
) -> None:
    docker_machine.configure(hub.url)
    before = containers_and_networks(docker_client)
    assert "nothing else" in docker_machine.examine()["isolation"]["message"]

    check = docker_machine.examine(under=WITHOUT_RIGHTS)["isolation"]

    assert check["status"] == "warning"
    assert "does not run as root" in check["message"]
    assert "deploy/gridnode.service" in check["fix"]
    assert containers_and_networks(docker_client) == before


def containers_and_networks(client: docker.APIClient) -> list[str]:
    return sorted(thing["Id"] for thing in [*client.containers(all=True), *client.networks()])


def test_a_limit_that_does_not_hold_is_found_out(docker_engine: DockerEngine) -> None:
    async def probe(what: Literal["cores", "memory"]) -> Any:
        engine = Engine(docker_engine.host)
        await engine.connect()
        try:
            # No limit at all: as on an engine that accepts one, shows it and does nothing.
            return await run_probe(engine, probe_spec(await probe_image(engine), what))
        finally:
            await engine.aclose()

    memory_limit = judge_memory_limit(asyncio.run(probe("memory")), fix="")
    assert memory_limit.message == "a container took 256 MB with a limit of 64 MB"
    if len(os.sched_getaffinity(0)) > 1:
        cpu_limit = judge_cpu_limit(asyncio.run(probe("cores")), 0, fix="")
        assert re.search(r"pinned to one core can use \d+ cores", cpu_limit.message)


def test_a_wrong_token_is_a_problem_and_the_other_checks_go_on(
    machine: Machine, hub: HubProgram
) -> None:
    machine.configure(hub.url, 'runtime = "process"', token="not-the-hubs-token")
    checks = machine.examine()
    assert checks["token"]["status"] == "problem"
    assert "computehub.toml" in checks["token"]["fix"]
    assert set(statuses(checks, *checks.keys() - {"token"})) == {"ok"}


def test_a_hub_that_has_lost_its_redis_is_told_from_one_that_is_away(
    machine: Machine, hub: HubProgram, redis_server: RedisServer
) -> None:
    machine.configure(hub.url, 'runtime = "process"')
    redis_server.stop()
    checks = machine.examine()
    assert statuses(checks, "hub", "token", "clock") == ["ok", "problem", "ok"]
    assert "Redis" in checks["token"]["message"]


def test_without_a_hub_its_checks_are_skipped_and_the_others_go_on(machine: Machine) -> None:
    machine.configure(f"http://127.0.0.1:{free_port()}", 'runtime = "process"')
    checks = machine.examine()
    assert statuses(checks, "hub", "token", "clock") == ["problem", "skipped", "skipped"]
    assert statuses(checks, "cpu_limit", "memory_limit", "memory") == ["ok", "ok", "ok"]


@pytest.fixture(params=[200, 404, 301])
def another_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A web server that has nothing to do with us, and answers everything with that status."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *_args: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_web_server_is_not_taken_for_a_hub(machine: Machine, another_server: str) -> None:
    machine.configure(another_server, 'runtime = "process"')
    checks = machine.examine()
    assert f"{another_server} is not a ComputeHub" in checks["hub"]["message"]
    assert statuses(checks, "token", "clock") == ["skipped", "skipped"]


@pytest.mark.parametrize(
    ("clock", "status", "says"),
    [
        ("+90s", "problem", r"(89|90|91) s ahead of the hub's"),
        ("-20s", "warning", r"(19|20|21) s behind the hub's"),
    ],
)
def test_a_clock_that_is_off_is_told_by_how_much(
    machine: Machine, hub: HubProgram, clock: str, status: str, says: str
) -> None:
    require(None if shutil.which("faketime") else "no faketime (tests/packages.sh installs it)")
    machine.configure(hub.url, 'runtime = "process"')
    checks = machine.examine(clock=clock)
    assert checks["clock"]["status"] == status
    assert re.search(says, checks["clock"]["message"])
    assert set(statuses(checks, *checks.keys() - {"clock"})) == {"ok"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("paralelism = 2", "line 4, key 'paralelism': there is no such key"),
        ('stop_timeout = "long"', "line 4, key 'stop_timeout': found 'long'"),
        ("token without quotes", "line 4: it is not TOML"),
    ],
)
def test_a_broken_configuration_is_named_by_file_and_line(
    machine: Machine, line: str, says: str
) -> None:
    machine.configure("http://127.0.0.1:1", line)
    checks = machine.examine()
    assert checks["configuration"]["status"] == "problem"
    assert f"{machine.config_path}, {says}" in checks["configuration"]["message"]
    assert statuses(checks, "hub", "memory") == ["skipped", "skipped"]


def test_without_a_configuration_it_says_how_to_get_one_and_writes_none(machine: Machine) -> None:
    checks = machine.examine()
    assert str(machine.config_path) in checks["configuration"]["message"]
    assert "Run 'gridnode' once" in checks["configuration"]["fix"]
    assert not machine.config_path.exists()


def test_a_stopped_engine_is_a_problem_and_the_other_checks_go_on(
    docker_machine: Machine, private_engine: DockerEngine, hub: HubProgram
) -> None:
    docker_machine.configure(hub.url)
    private_engine.stop()
    checks = docker_machine.examine()
    assert checks["engine"]["status"] == "problem"
    assert set(statuses(checks, *NEEDS_ENGINE)) == {"skipped"}
    assert set(statuses(checks, *set(NAMES) - {"engine", *NEEDS_ENGINE})) == {"ok"}


def test_an_engine_that_hangs_is_not_waited_for_for_ever(
    docker_machine: Machine, private_engine: DockerEngine, hub: HubProgram
) -> None:
    docker_machine.configure(hub.url)
    with private_engine.frozen():
        checks = docker_machine.examine()
    assert "takes connections, and says nothing" in checks["engine"]["message"]
    assert set(statuses(checks, *NEEDS_ENGINE)) == {"skipped"}


@pytest.mark.usefixtures("arm64")
def test_images_for_another_architecture_are_said_to_be_emulated(
    docker_machine: Machine, hub: HubProgram
) -> None:
    docker_machine.configure(hub.url, 'architecture = "aarch64"')
    check = docker_machine.examine()["architecture"]
    assert (check["status"], "under emulation" in check["message"]) == ("warning", True)


def test_plain_processes_are_limited_and_said_not_to_isolate(
    machine: Machine, hub: HubProgram
) -> None:
    machine.configure(hub.url, 'runtime = "process"')
    checks = machine.examine()
    assert "does not isolate" in checks["processes"]["message"]
    assert statuses(checks, "cpu_limit", "memory_limit", "architecture") == ["ok", "ok", "ok"]


def test_the_text_is_plain_where_it_is_not_a_terminal(machine: Machine) -> None:
    done = machine.run("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert re.search(r"^configuration +problem: there is none at", done.stdout)
    assert "To mend it: Run 'gridnode' once" in done.stdout


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_shows_colours_unless_no_color_is_set(
    machine: Machine, no_color: str, is_coloured: bool
) -> None:
    terminal, its_end = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "gridnode", "doctor"],
            env=os.environ | machine.environment | {"NO_COLOR": no_color},
            stdout=its_end,
            timeout=DOCTOR_ENDS_WITHIN_S,
            check=False,
        )
        shown = os.read(terminal, 65_536)
    finally:
        os.close(its_end)
        os.close(terminal)
    assert (b"\x1b[31mproblem" in shown) == is_coloured
    assert b"problem" in shown


def test_the_engine_command_says_which_engine_there_is(
    docker_machine: Machine, docker_engine: DockerEngine, docker_client: docker.APIClient
) -> None:
    facts = docker_client.info()
    done = docker_machine.run("engine")
    said = f"{facts['ServerVersion']} ({facts['Architecture']}) at {docker_engine.host}\n"
    assert (done.stdout, done.stderr, done.returncode) == (f"Docker {said}", "", 0)


def test_the_engine_command_fails_if_there_is_none(machine: Machine) -> None:
    done = machine.run("engine")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("gridnode: connecting to Docker at")
