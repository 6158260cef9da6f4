"""Which way a run is kept from the network, by the facts of a machine and its engine."""

from __future__ import annotations

from typing import Any

import pytest

from gridnode.runtimes.isolation import (
    Facts,
    find_obstacle,
    has_bridges_here,
    reaches_host_by_alias,
)


def facts(**differing: Any) -> Facts:
    """Of a Linux machine whose agent is root, but for what differs."""
    usual: dict[str, Any] = {
        "address": "unix:///var/run/docker.sock",
        "architecture": "x86_64",
        "engine_kernel": "6.1.0-13-amd64",
        "is_rootless": False,
        "is_linux": True,
        "kernel": "6.1.0-13-amd64",
        "may_enter": True,
    }
    return Facts(**(usual | differing))


MACOS = {"is_linux": False, "kernel": "24.1.0", "may_enter": False}
REMOTE = {"address": "tcp://box:2375"}


@pytest.mark.parametrize(
    "differing",
    [
        {},
        {"architecture": "aarch64"},
        {"architecture": "armv7l"},
        {"architecture": "amd64"},
        {"engine_kernel": ""},
        {"is_rootless": True},
    ],
    ids=["root", "arm64", "arm", "Podman's word", "an engine that does not say", "rootless"],
)
def test_nothing_is_in_the_way_of_the_namespace(differing: dict[str, Any]) -> None:
    assert find_obstacle(facts(**differing)) is None


@pytest.mark.parametrize(
    ("differing", "why"),
    [
        ({"may_enter": False}, "does not run as root"),
        ({"may_enter": False, "is_rootless": True}, "another user's"),
        (REMOTE, "may be another machine"),
        (MACOS, "in a virtual machine"),
        ({"engine_kernel": "5.15.49-linuxkit"}, "in a virtual machine"),
        ({"architecture": "riscv64"}, "no program for riscv64"),
    ],
)
def test_an_obstacle_says_why_and_what_to_do(differing: dict[str, Any], why: str) -> None:
    obstacle = find_obstacle(facts(**differing))
    assert obstacle
    assert why in obstacle.why
    assert obstacle.remedy


@pytest.mark.parametrize(
    ("differing", "has_bridges", "is_by_alias"),
    [
        ({}, True, False),
        ({"may_enter": False}, True, False),
        ({"is_rootless": True}, False, False),
        (REMOTE, False, False),
        (MACOS, False, True),
        ({"engine_kernel": "5.15.49-linuxkit"}, False, True),
    ],
    ids=["root", "no root", "rootless", "remote", "macOS", "Docker Desktop on Linux"],
)
def test_where_the_gateway_is_then_depends_on_where_the_engine_is(
    differing: dict[str, Any], has_bridges: bool, is_by_alias: bool
) -> None:
    found = facts(**differing)
    assert (has_bridges_here(found), reaches_host_by_alias(found)) == (has_bridges, is_by_alias)
