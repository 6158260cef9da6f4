"""What a container reaches, tried from inside it: its slot's gateway, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from gridcore.wire import NetworkName
from gridnode import runtimes
from gridnode.runtimes import Listening, RunOrder, RuntimeUnavailable
from gridnode.runtimes.docker import DockerRun, DockerRuntime
from gridnode.runtimes.docker_engine import Engine, EngineInfo
from gridnode.runtimes.isolation import Facts, look_around
from gridnode.runtimes.process import ProcessRuntime
from tests.acceptance.test_node_docker import containers, inside
from tests.support.docker_engine import DockerEngine, free_network
from tests.support.processes import end_process, start_process
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.anyio

LookAround = Callable[[str, EngineInfo], Facts]

WITHIN_S = 30.0
STAY = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]
REDIS_PORT = 6379


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def with_facts(**facts: Any) -> LookAround:
    """What is found here, but for these."""
    return lambda address, info: replace(look_around(address, info), **facts)


WITHOUT_RIGHTS = with_facts(may_enter=False)


NO_CAPABILITY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
IN_CONTAINER = ["unshare", "--net", "--pid", "--fork", "--mount-proc"]

AGENT = """
import asyncio, os, sys
from gridnode.runtimes import RunOrder
from gridnode.runtimes.docker import DockerRuntime
from gridnode.runtimes.docker_engine import Engine

async def main(host, node_id, image):
    runtime = DockerRuntime(
        lambda: Engine(host), node_id=node_id, platform="linux/amd64", memory_mb=64
    )
    watching = asyncio.create_task(runtime.run())
    await runtime.wait_available()
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    slots = (0,) if image else (0, 1, 2, 3)
    listening, *_ = await asyncio.gather(*(runtime.listen(slot, "none") for slot in slots))
    assert os.stat("/proc/thread-self/ns/net").st_ino == namespace
    if image:
        command = ["sleep", "1000"]
        name = f"gridcore-t-{node_id}-0"
        order = RunOrder(name, "t", 0, None, image, command, {}, listening)
        await runtime.start(order)
    print(listening.isolation, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runtime.aclose()
    watching.cancel()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def agent(
    engine: DockerEngine, node_id: str, under: Sequence[str] = (), image: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A process that does of an agent's work what is tried here, and ends when its input does."""
    command = [*under, sys.executable, "-c", AGENT, engine.host, node_id, image]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def kill_an_agent(engine: DockerEngine, image: str, under: Sequence[str] = ()) -> str:
    """The id of one that had a place and a run."""
    node_id = new_id()
    with agent(engine, node_id, under, image) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
    return node_id


class Node:
    """A runtime with its runs and gateways. A gateway here says whose it is to all who connect."""

    def __init__(
        self, engine: DockerEngine, image: str, look_around: LookAround, node_id: str
    ) -> None:
        self.id = node_id
        self.image = image
        self.runtime = DockerRuntime(
            lambda: Engine(engine.host),
            node_id=node_id,
            platform="linux/amd64",
            memory_mb=64,
            look_around=look_around,
        )
        self._gateways: dict[int, tuple[Listening, asyncio.Server]] = {}
        self._runs: dict[int, DockerRun] = {}
        self._watching = asyncio.create_task(self.runtime.run())

    async def listen(self, slot: int = 0, network: NetworkName = "none") -> Listening:
        """As a slot does before each run: with a gateway at each new place."""
        listening = await self.runtime.listen(slot, network)
        before, gateway = self._gateways.get(slot, (None, None))
        if listening is not before:
            if gateway:
                gateway.close()
            gateway = await asyncio.start_server(_answer(slot), sock=listening.socket.dup())
            self._gateways[slot] = listening, gateway
        return listening

    async def run(self, slot: int = 0, network: NetworkName = "none") -> str:
        """A container in that slot, in the place of the last; its name."""
        listening = await self.listen(slot, network)
        if slot in self._runs:
            await self._runs.pop(slot).remove()
        return await self.start(slot, listening)

    async def start(self, slot: int, listening: Listening) -> str:
        name = f"gridcore-t-{self.id}-{slot}"
        self._runs[slot] = await self.runtime.start(
            RunOrder(
                name=name,
                task="t",
                slot=slot,
                core=None,
                image=self.image,
                command=STAY,
                environment={},
                listening=listening,
            )
        )
        return name

    async def close(self) -> None:
        for run in self._runs.values():
            await run.remove()
        for _, gateway in self._gateways.values():
            gateway.close()
        for slot in self._gateways:
            await self.runtime.stop_listening(slot)
        await self.runtime.aclose()
        self._watching.cancel()


def _answer(slot: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"gateway of slot {slot}\n".encode())
        writer.close()

    return answer


def new_id() -> str:
    return f"n-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def node_of(
    engine: DockerEngine,
    image: str,
    look_around: LookAround = look_around,
    *,
    node_id: str | None = None,
) -> AsyncIterator[Node]:
    node = Node(engine, image, look_around, node_id or new_id())
    try:
        async with asyncio.timeout(WITHIN_S):
            await node.runtime.wait_available()
        yield node
    finally:
        await node.close()


@pytest.fixture
async def node(docker_engine: DockerEngine, busybox_tag: str) -> AsyncIterator[Node]:
    async with node_of(docker_engine, busybox_tag) as node:
        yield node


@pytest.fixture
async def node_without_rights(docker_engine: DockerEngine, busybox_tag: str) -> AsyncIterator[Node]:
    async with node_of(docker_engine, busybox_tag, WITHOUT_RIGHTS) as node:
        yield node


@pytest.fixture
async def service_of_host() -> AsyncIterator[int]:
    """The port of a server of this machine that is bound to 0.0.0.0."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"service of the host\n")
        writer.close()

    async with await asyncio.start_server(answer, host="0.0.0.0", port=0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def other_container(docker_client: docker.APIClient, busybox_tag: str) -> Iterator[str]:
    """The address of a container on Docker's bridge that answers on port 7000."""
    serve = "while :; do echo other container | nc -l -p 7000; done"
    container = docker_client.create_container(busybox_tag, ["sh", "-c", serve])["Id"]
    try:
        docker_client.start(container)
        networks = docker_client.inspect_container(container)["NetworkSettings"]["Networks"]
        yield networks["bridge"]["IPAddress"]
    finally:
        docker_client.remove_container(container, force=True)


@pytest.fixture
def other_machine(tmp_path: Path) -> Iterator[str]:
    """The address of a machine behind this one that answers on port 7000: a network namespace."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a machine on a network of this one's")
    mark = uuid.uuid4().hex[:6]
    network = free_network()
    here, there = str(network[1]), str(network[2])
    log = tmp_path / "log"
    server = None
    ip("netns", "add", f"gct{mark}")
    try:
        ip("link", "add", f"gct{mark}", "type", "veth", "peer", "eth0", "netns", f"gct{mark}")
        ip("address", "add", f"{here}/{network.prefixlen}", "dev", f"gct{mark}")
        ip("link", "set", f"gct{mark}", "up")
        ip("-n", f"gct{mark}", "address", "add", f"{there}/{network.prefixlen}", "dev", "eth0")
        ip("-n", f"gct{mark}", "link", "set", "eth0", "up")
        ip("-n", f"gct{mark}", "route", "add", "default", "via", here)
        command = ["ip", "netns", "exec", f"gct{mark}", sys.executable, "-c", SERVE, there]
        server = start_process(command, log=log)
        wait_until(lambda: "up" in log.read_text(), within_s=WITHIN_S, what="it answers")
        yield there
    finally:
        if server is not None:
            end_process(server)
        ip("netns", "delete", f"gct{mark}")


SERVE = r"""
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("up", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"other machine\n")
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Inside:
    """A shell in a container, while this loop goes on to serve its gateway."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client

    async def run(self, container: str, script: str) -> str:
        return await asyncio.to_thread(inside, self._client, container, script)

    async def call(self, container: str, host: str, port: int) -> str:
        """What who listens there says; empty if nobody can be reached."""
        return await self.run(container, f"nc -w 1 {host} {port} </dev/null 2>/dev/null")

    async def interfaces(self, container: str) -> list[str]:
        lines = (await self.run(container, "ip -o link")).splitlines()
        return [line.split(": ")[1].partition("@")[0] for line in lines]

    async def address(self, container: str) -> str:
        shown = await self.run(container, "ip -o -4 addr show eth0")
        return shown.split()[3].partition("/")[0]


@pytest.fixture
def shell(docker_client: docker.APIClient) -> Inside:
    return Inside(docker_client)


def addresses_of_this_machine() -> list[str]:
    found = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    return [
        address.address.partition("%")[0]
        for address in found
        if address.family in (socket.AF_INET, socket.AF_INET6)
        and not address.address.startswith(("127.", "::1"))
    ]


def things_of(client: docker.APIClient, node_id: str) -> list[str]:
    """Containers and networks of that node."""
    label = {"label": f"io.gridcore.node={node_id}"}
    networks = client.networks(filters=label)
    return [c["Names"][0] for c in containers(client, node_id)] + [n["Name"] for n in networks]


def holder_of(node: Node, slot: int = 0) -> str:
    return f"gridcore-{node.id}-{slot}-network"


async def test_a_container_has_loopback_with_its_gateway_on_it(node: Node, shell: Inside) -> None:
    container = await node.run()

    assert await shell.interfaces(container) == ["lo"]
    assert await shell.run(container, "ip route") == ""
    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"
    listening = await node.listen()
    assert (listening.host, listening.port) == ("127.0.0.1", REDIS_PORT)
    assert listening.isolation == "namespace"


async def test_no_other_address_is_in_reach(
    node: Node,
    shell: Inside,
    service_of_host: int,
    other_container: str,
    other_machine: str,
    docker_engine: DockerEngine,
) -> None:
    container = await node.run()
    for address in [*addresses_of_this_machine(), "127.0.0.1"]:
        assert await shell.call(container, address, service_of_host) == "", address
    assert await shell.call(container, other_container, 7000) == ""
    assert await shell.call(container, other_machine, 7000) == ""
    for port in (53, 80, 443):
        refused = await shell.run(container, f"nc -w 1 1.1.1.1 {port} </dev/null 2>&1")
        assert "Network is unreachable" in refused

    # From a container that may, all are in reach: what is shown above is not their silence.
    container = await node.run(network="bridge")
    answer = await shell.call(container, docker_engine.gateway, service_of_host)
    assert answer == "service of the host"
    assert await shell.call(container, other_container, 7000) == "other container"
    assert await shell.call(container, other_machine, 7000) == "other machine"


async def test_a_slot_reaches_its_own_gateway_alone(node: Node, shell: Inside) -> None:
    first, second = await node.run(0), await node.run(1)
    assert await shell.call(first, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"
    assert await shell.call(second, "127.0.0.1", REDIS_PORT) == "gateway of slot 1"
    listeners = await shell.run(first, "cat /proc/net/tcp | grep ' 0A '")
    assert len(listeners.splitlines()) == 1


async def test_a_program_can_look_up_the_machine_that_it_is_on(node: Node, shell: Inside) -> None:
    """Many do as they start, and end if nobody knows their name."""
    container = await node.run()
    assert await shell.run(container, "hostname -i") == "127.0.0.1"


async def test_the_place_outlives_the_runs_in_it(node: Node, shell: Inside) -> None:
    container = await node.run()
    listening = await node.listen()

    container = await node.run()

    assert await node.listen() is listening
    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"


@pytest.mark.parametrize("end", ["kill", "remove_container"])
async def test_a_run_goes_on_without_its_holder_and_the_next_has_a_new_place(
    node: Node, shell: Inside, docker_client: docker.APIClient, end: str
) -> None:
    container = await node.run()
    listening = await node.listen()

    if end == "kill":
        docker_client.kill(holder_of(node))
    else:
        docker_client.remove_container(holder_of(node), force=True)

    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"
    await wait_until_async(
        lambda: is_another(node, listening), within_s=WITHIN_S, what="the place is another one"
    )
    container = await node.run()
    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"


async def is_another(node: Node, listening: Listening) -> bool:
    return await node.runtime.listen(0, "none") is not listening


async def test_a_start_in_a_place_that_has_just_gone_is_tried_again(
    node: Node, docker_client: docker.APIClient
) -> None:
    listening = await node.listen()
    docker_client.remove_container(holder_of(node), force=True)
    with pytest.raises(RuntimeUnavailable, match="the network of its slot is gone"):
        await node.start(0, listening)


async def test_a_restarted_engine_gets_new_places(
    private_engine: DockerEngine, busybox_tag: str
) -> None:
    async with node_of(private_engine, busybox_tag) as node:
        await node.run()
        listening = await node.listen()

        await asyncio.to_thread(private_engine.restart)

        async with asyncio.timeout(WITHIN_S):
            await node.runtime.problem.wait_until(lambda problem: problem is not None)
            await node.runtime.wait_available()
        with private_engine.client() as client:
            container = await node.run()
            assert await node.listen() is not listening
            answer = await Inside(client).call(container, "127.0.0.1", REDIS_PORT)
            assert answer == "gateway of slot 0"


async def test_a_place_that_outlived_a_crash_of_the_engine_is_kept(
    private_engine: DockerEngine, busybox_tag: str
) -> None:
    private_engine.restart(live_restore=True)
    async with node_of(private_engine, busybox_tag) as node:
        listening = await node.listen()
        private_engine.kill()
        async with asyncio.timeout(WITHIN_S):
            await node.runtime.problem.wait_until(lambda problem: problem is not None)
        await asyncio.to_thread(private_engine.start, live_restore=True)
        async with asyncio.timeout(WITHIN_S):
            await node.runtime.wait_available()
        with private_engine.client() as client:
            container = await node.run()
            assert await node.listen() is listening
            answer = await Inside(client).call(container, "127.0.0.1", REDIS_PORT)
            assert answer == "gateway of slot 0"


@pytest.mark.parametrize("facts", [look_around, WITHOUT_RIGHTS], ids=["namespace", "bridge"])
async def test_an_agent_that_stops_leaves_nothing(
    docker_engine: DockerEngine,
    docker_client: docker.APIClient,
    busybox_tag: str,
    facts: LookAround,
) -> None:
    async with node_of(docker_engine, busybox_tag, facts) as node:
        await node.run(0)
        await node.run(1)
        assert len(things_of(docker_client, node.id)) > 2
    assert things_of(docker_client, node.id) == []


@pytest.mark.parametrize("under", [[], NO_CAPABILITY], ids=["namespace", "bridge"])
async def test_what_a_killed_agent_left_is_removed_at_its_next_start(
    docker_engine: DockerEngine, docker_client: docker.APIClient, busybox_tag: str, under: list[str]
) -> None:
    node_id = kill_an_agent(docker_engine, busybox_tag, under)
    assert len(things_of(docker_client, node_id)) == 2
    async with node_of(docker_engine, busybox_tag, node_id=node_id) as node:
        assert await node.runtime.remove_leftovers() == 1, "a holder is no run"
        assert things_of(docker_client, node_id) == []


async def test_a_holder_that_is_left_is_replaced_by_the_next_of_its_name(
    docker_engine: DockerEngine, busybox_tag: str, shell: Inside
) -> None:
    node_id = kill_an_agent(docker_engine, busybox_tag)
    async with node_of(docker_engine, busybox_tag, node_id=node_id) as node:
        container = await node.run()
        assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"


async def test_a_task_may_ask_for_a_network_and_its_gateway_is_still_its_own(
    node: Node, shell: Inside, other_container: str, docker_client: docker.APIClient
) -> None:
    container = await node.run(network="bridge")

    assert await shell.interfaces(container) == ["lo", "eth0"]
    assert (await node.listen(network="bridge")).isolation == "none"
    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"
    assert await shell.call(container, other_container, 7000) == "other container"
    other = await node.run(1, network="bridge")
    address = await shell.address(container)
    assert await shell.call(other, address, REDIS_PORT) == ""


async def test_a_task_with_another_network_gets_another_place(node: Node, shell: Inside) -> None:
    await node.run(network="bridge")
    container = await node.run(network="none")
    assert await shell.interfaces(container) == ["lo"]
    assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"


async def test_an_emulated_container_shares_a_place_with_a_native_holder(
    docker_engine: DockerEngine, shell: Inside, busybox_arm64_tag: str
) -> None:
    async with node_of(docker_engine, busybox_arm64_tag) as node:
        container = await node.run()
        assert await shell.run(container, "uname -m") == "aarch64"
        assert await shell.interfaces(container) == ["lo"]
        assert await shell.call(container, "127.0.0.1", REDIS_PORT) == "gateway of slot 0"


async def test_without_the_right_to_enter_runs_share_a_bridge_that_leads_nowhere(
    node_without_rights: Node,
    shell: Inside,
    other_container: str,
    other_machine: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = node_without_rights
    with caplog.at_level(logging.WARNING, logger="gridnode.docker"):
        first, second = await node.run(0), await node.run(1)
    events = [record for record in caplog.records if "isolation_reduced" in record.getMessage()]
    assert len(events) == 1

    for slot, container in enumerate((first, second)):
        listening = await node.listen(slot)
        assert listening.isolation == "internal_bridge"
        answer = await shell.call(container, listening.host, listening.port)
        assert answer == f"gateway of slot {slot}"

    assert await shell.call(first, other_container, 7000) == ""
    assert await shell.call(first, other_machine, 7000) == ""
    assert await shell.call(first, "1.1.1.1", 443) == ""

    # Each answers itself, and not the other.
    for container in (first, second):
        await shell.run(
            container,
            "(echo other run | nc -l -p 7000) >/dev/null 2>&1 &"
            " timeout 20 sh -c 'until grep -q :1B58 /proc/net/tcp*; do :; done'",
        )
    address = await shell.address(first)
    assert await shell.call(second, address, 7000) == ""
    assert await shell.call(first, address, 7000) == "other run"


async def test_an_internal_bridge_does_not_keep_out_what_the_namespace_does(
    node_without_rights: Node, shell: Inside, service_of_host: int, docker_engine: DockerEngine
) -> None:
    """Known, and said in the documents: what listens on an address of the host, and the gateways
    of other slots, which want their own secret."""
    node = node_without_rights
    container = await node.run(0)
    mine, other = await node.listen(0), await node.listen(1)
    for address in (mine.host, docker_engine.gateway):
        assert await shell.call(container, address, service_of_host) == "service of the host"
    assert await shell.call(container, other.host, other.port) == "gateway of slot 1"


async def test_a_bridge_that_was_removed_is_made_again(
    node_without_rights: Node, shell: Inside, docker_client: docker.APIClient
) -> None:
    node = node_without_rights
    listening = await node.listen()
    docker_client.remove_network(f"gridcore-{node.id}")
    with pytest.raises(RuntimeUnavailable, match="the network of its slot is gone"):
        await node.start(0, listening)

    container = await node.run()

    now = await node.listen()
    assert now is not listening
    assert await shell.call(container, now.host, now.port) == "gateway of slot 0"


async def test_a_bridge_holds_beyond_a_restart_of_the_engine(
    private_engine: DockerEngine, busybox_tag: str
) -> None:
    async with node_of(private_engine, busybox_tag, WITHOUT_RIGHTS) as node:
        listening = await node.listen()
        await asyncio.to_thread(private_engine.restart)
        async with asyncio.timeout(WITHIN_S):
            await node.runtime.problem.wait_until(lambda problem: problem is not None)
            await node.runtime.wait_available()
        with private_engine.client() as client:
            container = await node.run()
            assert await node.listen() is listening
            answer = await Inside(client).call(container, listening.host, listening.port)
            assert answer == "gateway of slot 0"


async def test_without_the_right_to_enter_a_task_may_still_ask_for_a_network(
    node_without_rights: Node, shell: Inside, docker_engine: DockerEngine, other_container: str
) -> None:
    node = node_without_rights
    container = await node.run(network="bridge")
    listening = await node.listen(network="bridge")
    assert (listening.host, listening.isolation) == (docker_engine.gateway, "none")
    answer = await shell.call(container, listening.host, listening.port)
    assert answer == "gateway of slot 0"
    assert await shell.call(container, other_container, 7000) == "other container"


async def test_beside_a_virtual_machine_the_gateway_is_on_loopback_which_the_engine_forwards(
    docker_engine: DockerEngine, shell: Inside, busybox_tag: str
) -> None:
    facts = with_facts(engine_kernel="another")
    async with node_of(docker_engine, busybox_tag, facts) as node:
        container = await node.run()
        listening = await node.listen()
        assert listening.isolation == "none"
        assert listening.socket.getsockname()[0] == "127.0.0.1"
        known = await shell.run(container, f"grep {listening.host} /etc/hosts")
        assert docker_engine.gateway in known


async def test_a_distant_engine_is_given_the_address_on_the_way_to_it(
    docker_engine: DockerEngine, shell: Inside, busybox_tag: str
) -> None:
    facts = with_facts(address=f"tcp://{docker_engine.gateway}:2375")
    async with node_of(docker_engine, busybox_tag, facts) as node:
        container = await node.run()
        listening = await node.listen()
        assert (listening.host, listening.isolation) == (docker_engine.gateway, "none")
        answer = await shell.call(container, listening.host, listening.port)
        assert answer == "gateway of slot 0"


def isolation_under(engine: DockerEngine, *wrapper: str) -> str:
    """What an agent gets that is started in this way; it says so once if that is not all."""
    with agent(engine, new_id(), wrapper) as process:
        isolation, log = process.communicate("stop", timeout=WITHIN_S)
        assert process.returncode == 0, log
        assert log.count("isolation_reduced") == (isolation.strip() != "namespace")
        return isolation.strip()


@pytest.mark.parametrize(
    ("wrapper", "isolation"),
    [
        (["env"], "namespace"),
        (["setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all"], "namespace"),
        (NO_CAPABILITY, "internal_bridge"),
        (["unshare", "--pid", "--fork", "--mount-proc"], "internal_bridge"),
        (["unshare", "--net"], "namespace"),
        ([*IN_CONTAINER, "sh", "-c", 'ip link set lo up; exec "$@"', "sh"], "none"),
    ],
    ids=[
        "root",
        "one capability",
        "no capability",
        "processes of its own",
        "network of its own",
        "both of its own",
    ],
)
def test_an_agent_gets_what_its_rights_allow(
    docker_engine: DockerEngine, wrapper: list[str], isolation: str
) -> None:
    assert isolation_under(docker_engine, *wrapper) == isolation


async def test_the_gateways_of_processes_are_on_loopback_each_on_a_port_of_its_own() -> None:
    runtime = ProcessRuntime(node_id="n", memory_mb=64)
    first, second = await runtime.listen(0, "none"), await runtime.listen(1, "bridge")
    assert await runtime.listen(0, "none") is first
    assert (first.host, second.host, first.isolation) == ("127.0.0.1", "127.0.0.1", "none")
    assert first.port != second.port
    await runtime.stop_listening(0)
    assert await runtime.listen(0, "none") is not first
    await runtime.aclose()
    assert second.socket.fileno() == -1


def test_a_process_of_a_task_gets_none_of_the_agents_rights() -> None:
    """The unit of the node gives it one, which `runtime = "process"` has no use for."""
    python = "/usr/bin/python3"  # the tests' own may be where another user cannot read it
    if os.geteuid() != 0 or not Path(python).exists():
        pytest.skip(f"only root can be another user, and that needs {python}")
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    rights = ["--inh-caps=-all,+sys_admin", "--ambient-caps=-all,+sys_admin"]
    command = [python, "-I", "-S", str(Path(runtimes.__file__).with_name("process_child.py"))]
    arguments = ["-", str(2**30), str(os.getpid()), "grep", "CapEff", "/proc/self/status"]
    done = subprocess.run(
        [*user, *rights, *command, *arguments], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[1], 16) == 0
