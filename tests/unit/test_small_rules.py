"""The decisions that fit in a few lines each: paces, places, addresses, cores."""

import errno
from datetime import UTC, datetime
from typing import Any

import pytest

from computehub.assignment import Place, assign
from computehub.pace import HEARTBEATS_PER_SECOND, heartbeat_interval_s, lost_after_s
from computehub.waiting_for import why_nobody_can
from gridcore.backoff import full_jitter_s
from gridcore.local.progress import Speed
from gridcore.platforms import canonical_platform, platform_of
from gridcore.redis_urls import (
    InvalidRedisURL,
    check_redis_url,
    hide_password,
    readdress_loopback,
)
from gridcore.wire import NodeView, TaskConfig, TaskSpec
from gridnode.cores import SlotPlace, plan_slots
from gridnode.runtimes import docker_host


def test_a_small_fleet_reports_as_often_as_it_likes_and_a_large_one_less_often() -> None:
    assert heartbeat_interval_s(30, 10) == 30
    assert heartbeat_interval_s(5, 10_000) == 10_000 / HEARTBEATS_PER_SECOND
    assert heartbeat_interval_s(60, 10_000) == 60


def test_a_node_is_lost_after_a_missed_heartbeat_and_the_grace() -> None:
    assert lost_after_s(30, 10) == 40


@pytest.mark.parametrize(
    ("architecture", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("arm", "linux/arm/v7"),
        ("riscv64", None),
    ],
)
def test_machines_have_the_platforms_of_the_design(architecture: str, platform: str | None) -> None:
    assert platform_of(architecture) == platform


@pytest.mark.parametrize("spelling", ["linux/arm64/v8", "linux/aarch64", "LINUX/ARM64"])
def test_other_spellings_of_a_platform_are_understood(spelling: str) -> None:
    assert canonical_platform(spelling) == "linux/arm64"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("redis://me:secret@h", "redis://me:***@h"),
        ("redis://:se@cr/et@h:1/0", "redis://:***@h:1/0"),
        ("redis://token@h:1/0", "redis://***@h:1/0"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    "url", ["", "h:1", "http://h", "redis://", "redis://h:port", "redis://h:0", "redis://h/x",
            "redis://h/0?db=3", "unix:///run/redis.sock"]
)  # fmt: skip
def test_a_url_that_no_node_could_use_is_refused(url: str) -> None:
    with pytest.raises(InvalidRedisURL, match="Write it as redis://"):
        check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "seen_from_elsewhere"),
    [
        ("redis://127.0.0.1:6390/0", "redis://hub:6390/0"),
        ("redis://me:p%40ss@localhost:1/2", "redis://me:p%40ss@hub:1/2"),
        ("rediss://[::1]:7/0", "rediss://hub:7/0"),
        ("redis://10.0.0.7:1/0", "redis://10.0.0.7:1/0"),
        ("redis://redis.example/0", "redis://redis.example/0"),
    ],
)
def test_only_a_loopback_address_is_replaced(url: str, seen_from_elsewhere: str) -> None:
    assert readdress_loopback(url, "hub") == seen_from_elsewhere


def test_an_ipv6_host_gets_its_brackets() -> None:
    assert readdress_loopback("redis://:p@127.0.0.1:1/0", "fe80::1") == "redis://:p@[fe80::1]:1/0"


def assigned(task: TaskSpec | None, place: Place) -> TaskConfig | None:
    return assign(task, "v", place, "redis://127.0.0.1:1/0", lease_s=30)


def test_a_loopback_redis_is_named_as_the_node_sees_the_hub() -> None:
    task = TaskSpec(name="t", image="i")
    here = assigned(task, Place("linux/amd64", "docker", "127.0.0.1"))
    there = assigned(task, Place("linux/amd64", "docker", "10.1.2.3"))
    assert here is not None
    assert there is not None
    assert here.input_redis == here.output_redis == "redis://127.0.0.1:1/0"
    assert there.input_redis == there.output_redis == "redis://10.1.2.3:1/0"


def test_a_process_node_needs_a_command_and_no_image() -> None:
    with_image = TaskSpec(name="t", image="i")
    with_command = TaskSpec(name="t", command=["c"])
    process = Place("linux/amd64", "process", "h")
    container = Place("linux/amd64", "docker", "h")
    assert assigned(with_image, process) is None
    assert assigned(with_command, process) is not None
    assert assigned(with_command, container) is None
    assert assigned(None, container) is None


def node(*, status: Any = "Online") -> NodeView:
    return NodeView(
        id="n",
        hostname="h",
        architecture="x86_64",
        cpu_count=4,
        last_seen=datetime.now(UTC),
        status=status,
        runtime_status="Idle",
        active_containers=0,
        platform="linux/amd64",
        runtime="docker",
        parallelism=4,
        version="",
        task="t",
        task_version="v",
        error=None,
        image_pull=None,
        slots=[],
        isolation=None,
        work=None,
        stop_requested=False,
    )


def test_why_nobody_can_work_on_a_task_is_said_for_each_kind_of_node() -> None:
    docker_node, lost = node(), node(status="Lost")
    process_node = docker_node.model_copy(update={"runtime": "process"})
    arm = TaskSpec(name="t", images={"linux/arm64": "i"})
    assert "no node is online" in str(why_nobody_can(arm, [lost]))
    said = str(why_nobody_can(arm, [docker_node, docker_node, process_node]))
    assert said.startswith("it is not for any of the 3 online nodes: ")
    assert said.count("linux/amd64 has no image") == 1
    assert 'need a "command"' in said
    assert why_nobody_can(TaskSpec(name="t", image="i"), [process_node, docker_node]) is None


def test_there_is_a_slot_for_each_core_and_more_slots_share_cores_in_turn() -> None:
    assert plan_slots([0, 2, 3], 8, None) == [SlotPlace(0, 0), SlotPlace(1, 2), SlotPlace(2, 3)]
    assert [slot.core for slot in plan_slots([4, 5], 8, 5)] == [4, 5, 4, 5, 4]
    assert [slot.core for slot in plan_slots([4, 5], 8, 1)] == [4]
    assert plan_slots(None, 2, None) == [SlotPlace(0, None), SlotPlace(1, None)]


def test_backoff_grows_and_stays_below_its_limit() -> None:
    for attempt in (0, 1, 5, 10, 10_000):
        waits = [full_jitter_s(attempt, most_s=60) for _ in range(200)]
        assert all(0 <= wait <= min(60, 2.0 ** min(attempt, 10)) for wait in waits)
        assert max(waits) > min(60, 2.0 ** min(attempt, 10)) / 2


def test_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    assert speed.update(0, 0.0) == 0
    assert speed.update(100, 1.0) == 100
    for second in range(2, 20):
        speed.update(100, float(second))
    assert speed.update(200, 20.0) == pytest.approx(100 / 5, rel=0.3)


def refusal(number: int, path: str = "/var/run/docker.sock") -> OSError:
    error = OSError(number, errno.errorcode[number])
    error.filename = path
    return error


@pytest.mark.parametrize(
    ("refused", "circumstances", "said"),
    [
        (errno.EACCES, {}, "sudo usermod -aG docker ada"),
        (errno.ENOENT, {}, "sudo apt install docker.io"),
        (errno.ENOENT, {"is_installed": True}, "sudo systemctl start docker"),
        (errno.ECONNREFUSED, {"is_installed": True}, "sudo systemctl start docker"),
        (errno.ENOENT, {"is_macos": True}, "Start Docker Desktop or OrbStack"),
        (errno.ENOENT, {}, "systemctl --user enable --now podman.socket"),
        (errno.ENOENT, {"docker_host": "unix:///x"}, "DOCKER_HOST is set to unix:///x"),
    ],
)
def test_a_missing_engine_is_explained_for_this_machine(
    refused: int, circumstances: dict[str, Any], said: str
) -> None:
    details = {"docker_host": None, "is_macos": False, "is_installed": False} | circumstances
    error = docker_host.explain([refusal(refused)], user="ada", **details)
    assert said in str(error)
    assert "/var/run/docker.sock" in str(error)


def test_an_engine_is_looked_for_where_docker_desktop_orbstack_and_podman_have_it() -> None:
    environment = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert docker_host.candidates(environment) == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/7/docker.sock",
        "unix:///run/user/7/podman/podman.sock",
        "unix:///home/ada/.docker/run/docker.sock",
        "unix:///home/ada/.orbstack/run/docker.sock",
        "unix:///run/podman/podman.sock",
    ]
    assert docker_host.candidates(environment | {"DOCKER_HOST": "tcp://d:1"}) == ["tcp://d:1"]
