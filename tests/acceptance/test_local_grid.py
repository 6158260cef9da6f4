"""`gridcore demo` and `gridcore up`, as a newcomer runs them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from gridcore.local.demo import WrongResultError, check_results
from gridcore.local.worker import steps_to_1
from tests.support.docker_engine import DockerEngine
from tests.support.processes import free_port, start_process, tail
from tests.support.waiting import wait_until

NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def demo(environment: dict[str, str], items: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gridcore", "demo", "--items", str(items)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_demo_runs_without_docker_and_says_so() -> None:
    ended = demo(NO_DOCKER, 5_000)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "No Docker here: plain processes do the work" in ended.stdout
    assert "DOCKER_HOST is set to unix:///nowhere/docker.sock" in ended.stdout
    assert re.search(r"items/s, 0 waiting, 5,000 done, ETA 0 s", ended.stdout)
    assert "All 5,000 results are there, each once, and each is right." in ended.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if "gridcore-demo-" in str(p.info)]


def test_the_demo_runs_in_containers_of_an_image_that_it_makes_itself(
    docker_engine: DockerEngine,
) -> None:
    ended = demo({"DOCKER_HOST": docker_engine.host}, 5_000)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Docker is there: Docker" in ended.stdout
    assert "plain processes" not in ended.stdout
    assert "All 5,000 results are there, each once, and each is right." in ended.stdout
    with docker_engine.client() as client:
        assert client.containers(all=True, filters={"label": "io.gridcore.task=demo"}) == []


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (["1 0", "2 1", "3 7", "4 3"], "the result for 4 is 3, not 2"),
        (["1 0", "2 1", "4 2"], "1 results are missing, the first for 3"),
        (["1 0", "2 1", "3 7", "4 2", "2 1"], "there are 5 results for 4 items: 2 has 2"),
        (["1 0", "2 1", "3 7", "4 2", "5 5"], "there are 5 results for 4 items"),
    ],
)
def test_the_check_of_the_demo_can_fail(results: list[str], said: str) -> None:
    with pytest.raises(WrongResultError, match=said):
        check_results(iter(results), 4)


def test_the_check_of_the_demo_is_content_with_what_is_right() -> None:
    check_results((f"{n} {steps_to_1(n)}" for n in (3, 1, 4, 2)), 4)


def test_a_grid_that_is_up_prints_a_curl_line_that_works_and_starts_again_as_it_was(
    tmp_path: Path,
) -> None:
    port, log = free_port(), tmp_path / "printed"
    command = [
        *("env", *(f"{name}={value}" for name, value in NO_DOCKER.items()), "PYTHONUNBUFFERED=1"),
        *(sys.executable, "-m", "gridcore", "up", "--host", "127.0.0.1"),
        *("--port", str(port), "--folder", str(tmp_path / "grid")),
    ]
    tokens = []
    for attempt in range(2):
        up = start_process(command, log=log)
        try:
            wait_until(
                lambda: log.read_text().count("take results.") > attempt,  # noqa: B023
                within_s=30,
                what="the grid is up",
            )
            printed = log.read_text()
            curl = re.findall(r"curl -H \"(.+?): (.+?)\" (\S+)", printed)[-1]
            nodes = httpx.get(curl[2], headers={curl[0]: curl[1]}, trust_env=False).json()
            assert [node["status"] for node in nodes] == ["Online"]
            tokens.append(re.findall(r"Token +(\S+)", printed)[-1])

            folder = str(tmp_path / "grid")
            url = subprocess.run(
                [sys.executable, "-m", "computehub", "redis-url"],
                env=os.environ | {"IDM_GRIDCORE_CONFIG": folder},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            with redis.Redis.from_url(url) as store:
                assert int(store.incr("survives")) == attempt + 1
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
        assert up.returncode == 0, tail(log)
        assert "The grid has stopped" in log.read_text()
        left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info)]
        assert left == []
    assert tokens[0] == tokens[1]


def test_a_grid_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "gridcore", "up", "--host", "127.0.0.1"),
                *("--port", str(port), "--folder", str(tmp_path)),
            ],
            env=os.environ | NO_DOCKER,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"listening on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert "choose another one with --port" in ended.stderr
    assert not (tmp_path / "computehub.toml").exists(), "nothing is written before that is known"
    assert "Traceback" not in ended.stderr


def test_a_second_grid_in_the_same_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    log = tmp_path / "printed"
    folder = tmp_path / "grid"
    command = [
        *("env", *(f"{name}={value}" for name, value in NO_DOCKER.items()), "PYTHONUNBUFFERED=1"),
        *(sys.executable, "-m", "gridcore", "up", "--host", "127.0.0.1", "--folder", str(folder)),
    ]
    first = start_process([*command, "--port", str(free_port())], log=log)
    try:
        wait_until(lambda: "take results." in log.read_text(), within_s=30, what="the grid is up")
        settings = folder / "gridnode.toml"
        wait_until(
            lambda: "node_id" in settings.read_text(), within_s=30, what="the node has its id"
        )
        before = {path.name: path.read_text() for path in folder.glob("*.toml")}

        second = subprocess.run(
            [*command, "--port", str(free_port())],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert second.returncode == 1
        assert "a grid of this folder is up already" in second.stderr
        assert "The grid is up" not in second.stdout
        assert {path.name: path.read_text() for path in folder.glob("*.toml")} == before
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(60)
