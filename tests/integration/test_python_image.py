"""An image of this machine's Python works in containers, whichever Python it is."""

import asyncio
import hashlib
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import docker
import pytest

from gridnode.python_image import PythonImageError, build_python_image, write_python_archive
from gridnode.runtimes.docker_engine import Engine
from tests.support.docker_engine import LABELS, DockerEngine
from tests.support.fixtures import require

TAG = "gridcore-test/python:1"
SYSTEM_TAG = "gridcore-test/system-python:1"
SYSTEM_PYTHON = Path("/usr/bin/python3.11")
MOST_BYTES = 60_000_000

LEFT_OUT = {"ensurepip", "idlelib", "lib2to3", "tkinter", "_tkinter", "turtle", "turtledemo"}


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine) -> Iterator[str]:
    build(docker_engine, command=["python", "-c", "print('hello')"], packages=["redis", "httpx"])
    yield TAG
    with docker_engine.client() as client:
        client.remove_image(TAG, force=True)


def build(engine: DockerEngine, *, command: list[str], packages: Sequence[str] = ()) -> None:
    async def connect_and_build() -> None:
        connection = Engine(engine.host)
        await connection.connect()
        try:
            await build_python_image(
                connection,
                TAG,
                command=command,
                packages=packages,
                files={"/app/greeting.txt": b"from a file"},
                labels=LABELS,
            )
        finally:
            await connection.aclose()

    asyncio.run(connect_and_build())


def output_of(
    client: docker.APIClient,
    tag: str,
    script: str | None = None,
    *,
    hosts: dict[str, str] | None = None,
) -> str:
    command = ["python", "-c", script] if script else None
    host_config = client.create_host_config(extra_hosts=hosts)
    container = client.create_container(tag, command, host_config=host_config)["Id"]
    try:
        client.start(container)
        code = client.wait(container, timeout=60)["StatusCode"]
        output = client.logs(container).decode().strip()
        assert code == 0, output
        return str(output)
    finally:
        client.remove_container(container, force=True)


def archived(packages: Sequence[str] = ()) -> io.BytesIO:
    archive = io.BytesIO()
    write_python_archive(archive, TAG, command=["python"], packages=packages)
    archive.seek(0)
    return archive


def layer_entries() -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=archived()) as archive:
        name = next(member for member in archive.getnames() if member.endswith(".tar"))
        layer = archive.extractfile(name)
        assert layer is not None
        with tarfile.open(fileobj=layer) as entries:
            return entries.getmembers()


def importable_here() -> set[str]:
    home = Path(sysconfig.get_path("stdlib"))
    files = {path.name.partition(".")[0] for path in (home / "lib-dynload").glob("*.so")}
    files |= {path.stem for path in home.glob("*.py")}
    files |= {path.parent.name for path in home.glob("*/__init__.py")}
    return files & sys.stdlib_module_names - LEFT_OUT - {"antigravity", "this"}


def test_the_command_runs_as_nobody_with_this_version_of_python(
    docker_client: docker.APIClient, image: str
) -> None:
    script = "import os, sys; print(os.getuid(), os.getcwd(), sys.version)"
    assert output_of(docker_client, image) == "hello"
    assert output_of(docker_client, image, script) == f"65534 /tmp {sys.version}"


def test_every_module_of_the_standard_library_can_be_imported(
    docker_client: docker.APIClient, image: str
) -> None:
    script = f"""
import importlib
for name in {sorted(importable_here())}:
    importlib.import_module(name)
print("all")
"""
    assert output_of(docker_client, image, script).splitlines()[-1] == "all"


def test_names_of_hosts_are_looked_up(docker_client: docker.APIClient, image: str) -> None:
    script = "import socket; print(socket.getaddrinfo('the-hub', 80)[0][4])"
    found = output_of(docker_client, image, script, hosts={"the-hub": "192.0.2.7"})
    assert found == "('192.0.2.7', 80)"


def test_packages_come_with_what_they_require_and_know_their_version(
    docker_client: docker.APIClient, image: str
) -> None:
    script = """
import importlib.metadata, httpx, redis
assert importlib.metadata.version("redis") == redis.__version__
print(redis.Redis(), httpx.Client())
"""
    assert "Redis" in output_of(docker_client, image, script)


def test_modules_are_compiled_already_and_still_show_their_source(
    docker_client: docker.APIClient, image: str
) -> None:
    script = """
import inspect, json.decoder, pathlib, redis
for module in (json.decoder, redis):
    assert pathlib.Path(module.__cached__).exists(), module.__cached__
print(inspect.getsource(json.decoder.JSONDecoder.decode).splitlines()[0].strip())
"""
    assert output_of(docker_client, image, script) == "def decode(self, s, _w=WHITESPACE.match):"


def test_given_files_are_there_and_temporary_ones_can_be_written(
    docker_client: docker.APIClient, image: str
) -> None:
    script = """
import pathlib, tempfile
tempfile.NamedTemporaryFile()
print(pathlib.Path("/app/greeting.txt").read_text())
"""
    assert output_of(docker_client, image, script) == "from a file"


def test_the_systems_own_python_makes_a_working_image_too(
    docker_client: docker.APIClient, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    require(None if SYSTEM_PYTHON.exists() else f"no {SYSTEM_PYTHON}")
    program = tmp_path / "program.py"
    program.write_text("import httpx, ssl, sqlite3, sys; print(sys.version)")
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; print(sys.version)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    made = subprocess.run(
        [
            *(SYSTEM_PYTHON, "-m", "gridnode", "python-image", SYSTEM_TAG, "--package", "httpx"),
            *("--file", f"{program}:/app/program.py", "--", "python", "-I", "/app/program.py"),
        ],
        env=os.environ
        | {
            "DOCKER_HOST": docker_engine.host,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (made.stdout, made.stderr) == (f"{SYSTEM_TAG}\n", "")
    try:
        assert output_of(docker_client, SYSTEM_TAG) == version
    finally:
        docker_client.remove_image(SYSTEM_TAG, force=True)


def test_the_same_python_gives_the_same_image() -> None:
    first, second = (
        hashlib.sha256(archived(packages=["redis"]).getvalue()).hexdigest() for _ in range(2)
    )
    assert first == second


def test_the_image_is_small_and_holds_no_tests_and_no_dates() -> None:
    entries = layer_entries()
    folders = {part for entry in entries for part in PurePosixPath(entry.name).parts[:-1]}
    assert sum(entry.size for entry in entries) < MOST_BYTES
    assert not folders & (LEFT_OUT | {"test", "tests"})
    assert {(entry.mtime, entry.uid, entry.gid) for entry in entries} == {(0, 0, 0)}
    assert [entry.name for entry in entries if entry.mode == 0o1777] == ["tmp"]


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(PythonImageError, match=r"'no_such_package'.*pip install"):
        archived(packages=["no_such_package"])


@pytest.mark.parametrize("path", ["relative.txt", "/", "/app/../etc/passwd"])
def test_a_file_needs_an_absolute_path_in_the_image(path: str) -> None:
    with pytest.raises(PythonImageError, match="no absolute path of a file"):
        write_python_archive(io.BytesIO(), TAG, command=["python"], files={path: b""})


def test_elsewhere_than_on_linux_it_says_what_else_can_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PythonImageError, match=r"images hold Linux programs.*from a registry"):
        archived()
