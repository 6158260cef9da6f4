"""What `gridnode doctor` makes of the facts."""

import re
from typing import Any

import pytest

from gridnode.commands.doctor import as_text
from gridnode.doctor import Check
from gridnode.doctor.architecture import judge_architecture
from gridnode.doctor.clock import judge_clock
from gridnode.doctor.disk import judge_disk
from gridnode.doctor.engine import FoundEngine, judge_abilities
from gridnode.doctor.hub import judge_failure
from gridnode.doctor.isolation import judge_isolation
from gridnode.doctor.limits import ProbeEnded, judge_cpu_limit, judge_memory_limit
from gridnode.doctor.memory import judge_memory
from gridnode.doctor.probe import LIMIT_MISSING
from gridnode.doctor.processes import judge_cpu_limit as judge_process_cpu_limit
from gridnode.doctor.processes import judge_memory_limit as judge_process_memory_limit
from gridnode.ending import Ended
from gridnode.hub_client import HubRefused, HubUnreachable
from gridnode.runtimes.docker_engine import ContainerState, EngineInfo
from gridnode.runtimes.isolation import Obstacle

GB = 10**9
FIX = "what to do"


def engine_info(**facts: Any) -> EngineInfo:
    able: dict[str, Any] = dict.fromkeys(
        ("can_pin", "can_limit_memory", "can_limit_swap", "can_limit_pids"), True
    )
    about = {"version": "20.10.24", "architecture": "x86_64", "data_folder": "/d", "name": "Debian"}
    return EngineInfo(**(about | able | facts))


def ended(exit_code: int, *lines: str, out_of_memory: bool = False) -> ProbeEnded:
    return ProbeEnded(ContainerState(False, exit_code, out_of_memory, ""), list(lines))


def architecture(machine: str, engine: str | None, **facts: Any) -> Check:
    known: dict[str, Any] = {"configured": None, "emulated": (), "is_32_bit": False}
    return judge_architecture(machine=machine, engine=engine, **(known | facts))


@pytest.mark.parametrize(
    ("offset_s", "status", "says"),
    [
        (0.4, "ok", "agrees"),
        (-4.9, "ok", "agrees"),
        (5.0, "warning", "5 s ahead of"),
        (-59.0, "warning", "59 s behind"),
        (60.0, "problem", "60 s ahead of"),
        (-400.0, "problem", "7 min behind"),
        (7300.0, "problem", "2 h ahead of"),
        (-20 * 86_400.0, "problem", "20 days behind"),
    ],
)
def test_a_clock_is_judged_by_how_far_it_is_off(offset_s: float, status: str, says: str) -> None:
    check = judge_clock(offset_s)
    assert check.status == status
    assert says in check.message
    assert check.status == "ok" or "NTP" in str(check.fix)


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(5 * GB, "ok"), (5 * GB - 1, "warning"), (GB - 1, "problem")]
)
def test_a_disk_is_judged_by_what_is_free(free_bytes: int, status: str) -> None:
    assert judge_disk(free_bytes, "/var/lib/docker").status == status


def test_containers_that_fit_into_memory_are_fine() -> None:
    assert judge_memory(4, 900, 3792).status == "ok"


def test_containers_that_do_not_fit_come_with_numbers_that_do() -> None:
    check = judge_memory(4, 1024, 3792)
    assert check.status == "warning"
    assert check.fix == "Set container_memory = 853 or parallelism = 3 in gridnode.toml"


def test_a_container_larger_than_the_machine_can_only_be_made_smaller() -> None:
    assert judge_memory(1, 4096, 1000).fix == "Set container_memory = 900 in gridnode.toml"


@pytest.mark.parametrize(
    ("machine", "engine"), [("x86_64", "x86_64"), ("arm64", "aarch64"), ("armv7l", "aarch64")]
)
def test_an_engine_that_runs_this_machines_images_is_fine(machine: str, engine: str) -> None:
    assert architecture(machine, engine).status == "ok"


def test_emulation_is_slow_and_said_to_be() -> None:
    check = architecture("x86_64", "x86_64", configured="aarch64", emulated=["linux/arm64"])
    assert (check.status, "several times slower" in check.message) == ("warning", True)


def test_an_architecture_that_nothing_emulates_is_a_problem() -> None:
    check = architecture("x86_64", "x86_64", configured="aarch64")
    assert check.status == "problem"
    assert "Remove 'architecture = \"aarch64\"'" in str(check.fix)
    assert "qemu-user-static" in str(check.fix)


def test_where_nobody_can_see_the_emulators_they_are_taken_to_be_there() -> None:
    assert architecture("arm64", "aarch64", configured="x86_64", emulated=None).status == "warning"


def test_processes_are_never_emulated() -> None:
    assert architecture("x86_64", None).status == "ok"
    assert architecture("x86_64", None, configured="aarch64").status == "problem"


def test_a_machine_without_images_is_named() -> None:
    check = architecture("riscv64", "riscv64")
    assert (check.status, "riscv64" in check.message) == ("problem", True)


def test_a_32_bit_system_on_a_64_bit_kernel_is_told_what_to_configure() -> None:
    check = architecture("aarch64", "aarch64", is_32_bit=True)
    assert (check.status, 'architecture = "armv7l"' in str(check.fix)) == ("warning", True)
    configured = architecture("aarch64", "aarch64", is_32_bit=True, configured="armv7l")
    assert configured.status == "ok"


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "ok"),
        ({"can_limit_swap": False}, "warning"),
        ({"can_limit_pids": False}, "warning"),
        ({"can_limit_memory": False}, "problem"),
        ({"can_pin": False, "can_limit_memory": False}, "problem"),
    ],
)
def test_an_engine_is_judged_by_what_it_can_limit(facts: dict[str, bool], status: str) -> None:
    check = judge_abilities(engine_info(**facts), is_rootless=False, is_raspberry_pi=False)
    assert check.status == status


@pytest.mark.parametrize(
    ("where", "fix"),
    [
        ({"is_rootless": False, "is_raspberry_pi": True}, "cgroup_enable=memory cgroup_memory=1"),
        ({"is_rootless": False, "is_raspberry_pi": False}, "GRUB_CMDLINE_LINUX"),
        ({"is_rootless": True, "is_raspberry_pi": True}, "Delegate=cpu cpuset io memory pids"),
    ],
)
def test_missing_limits_are_switched_on_where_the_machine_keeps_them(
    where: dict[str, bool], fix: str
) -> None:
    check = judge_abilities(engine_info(can_limit_memory=False), **where)
    assert fix in str(check.fix)


@pytest.mark.parametrize(
    ("address", "shown", "is_local", "is_rootless"),
    [
        ("unix:///var/run/docker.sock", "Docker", True, False),
        ("unix:///run/user/1000/podman/podman.sock", "Podman", True, True),
        ("tcp://box:2375", "Docker", False, False),
    ],
)
def test_an_engine_is_known_by_its_address(
    address: str, shown: str, is_local: bool, is_rootless: bool
) -> None:
    found = FoundEngine(address, engine_info())
    assert str(found) == f"{shown} 20.10.24 (x86_64) at {address}"
    assert (found.is_local, found.is_rootless) == (is_local, is_rootless)


def test_a_limit_holds_if_the_probe_ran_into_it() -> None:
    assert judge_cpu_limit(ended(0, "1 cores"), 3, fix=FIX).status == "ok"
    assert judge_memory_limit(ended(137), fix=FIX).status == "ok"
    assert judge_memory_limit(ended(1, out_of_memory=True), fix=FIX).status == "ok"


def test_a_limit_is_missing_if_the_probe_went_beyond_it() -> None:
    cpu_limit = judge_cpu_limit(ended(LIMIT_MISSING, "4 cores"), 3, fix=FIX)
    memory_limit = judge_memory_limit(ended(LIMIT_MISSING, "256 MB"), fix=FIX)
    assert (cpu_limit.status, cpu_limit.fix) == ("problem", FIX)
    assert "can use 4 cores" in cpu_limit.message
    assert (memory_limit.status, memory_limit.fix) == ("problem", FIX)


@pytest.mark.parametrize(
    "judge", [lambda e: judge_cpu_limit(e, 0, fix=FIX), lambda e: judge_memory_limit(e, fix=FIX)]
)
def test_a_probe_that_fails_for_another_reason_says_nothing_of_limits(judge: Any) -> None:
    check = judge(ended(127, "python: not found"))
    assert (check.status, check.fix == FIX) == ("problem", False)
    assert "exit code 127 and said: python: not found" in check.message


def test_a_container_that_reaches_its_gateway_alone_is_well_kept() -> None:
    assert judge_isolation("namespace", None).status == "ok"


@pytest.mark.parametrize(
    ("isolation", "reaches"),
    [("internal_bridge", "what listens on this machine"), ("none", "all that this machine does")],
)
def test_a_container_that_reaches_more_comes_with_the_reason_and_what_to_do(
    isolation: Any, reaches: str
) -> None:
    check = judge_isolation(isolation, Obstacle("the agent does not run as root", "Do it"))
    assert (check.status, check.fix) == ("warning", "Do it")
    assert check.message == f"a container also reaches {reaches}: the agent does not run as root"


def test_processes_are_judged_by_the_same_probe() -> None:
    survived = Ended(LIMIT_MISSING, 0.0, log_lines=("256 MB",))
    assert judge_process_cpu_limit(Ended(0, 0.0), 1).status == "ok"
    assert judge_process_cpu_limit(Ended(LIMIT_MISSING, 0.0), 1).status == "problem"
    assert judge_process_cpu_limit(Ended(1, 0.0), None).status == "warning"
    assert judge_process_memory_limit(Ended(1, 0.0, out_of_memory=True)).status == "ok"
    assert judge_process_memory_limit(survived).status == "warning"
    assert judge_process_memory_limit(TimeoutError()).status == "problem"


def test_a_hub_that_refuses_its_plainest_call_is_no_hub() -> None:
    refused = HubRefused("GET http://x/health", cause="the hub answered 404", next_step="")
    check = judge_failure("http://x", refused)
    assert check.message == "http://x is not a ComputeHub: the hub answered 404"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (HubUnreachable("GET", cause="ConnectError: refused", next_step=""), "firewall"),
        (HubUnreachable("GET", cause="CERTIFICATE_VERIFY_FAILED", next_step=""), "date"),
        (TimeoutError(), "firewall"),
    ],
)
def test_a_hub_that_does_not_answer_is_looked_for_where_it_usually_is(
    error: HubUnreachable | TimeoutError, fix: str
) -> None:
    check = judge_failure("https://x", error)
    assert (check.status, fix in str(check.fix)) == ("problem", True)


def test_the_text_has_a_line_a_check_and_another_for_what_to_do() -> None:
    checks = [
        Check("hub", "ok", "answers"),
        Check("clock", "warning", "is off", "set it"),
        Check("engine", "problem", "is away", "start it"),
        Check("limits", "skipped", "no engine"),
    ]
    assert re.sub(r"\x1b\[\d*m", "", as_text(checks)).splitlines() == [
        "hub     ok: answers",
        "clock   warning: is off",
        "        To mend it: set it",
        "engine  problem: is away",
        "        To mend it: start it",
        "limits  skipped: no engine",
        "",
        "1 problem and 1 warning (1 skipped).",
    ]


def test_the_text_says_so_when_nothing_is_wrong() -> None:
    assert as_text([Check("hub", "ok", "answers")]).endswith("All is well.")
