"""The hub answers, and takes the token. Registers nothing."""

from __future__ import annotations

import asyncio
import platform
import time
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from gridcore.platforms import PLATFORMS, platform_of
from gridnode.config import NodeConfig
from gridnode.doctor.check import Check, from_error, ok, problem
from gridnode.hub_client import HubClient, HubError, HubRefused, TokenRefused

HUB_ANSWERS_WITHIN_S = 20.0
"""A little more than the client allows for one call."""

REACHED = "hub"
TOKEN = "token"  # noqa: S105  # the name of the check

_NOT_A_HUB_FIX = "Let server_url in gridnode.toml name a ComputeHub, as in http://hub.example:8080"


@dataclass(frozen=True)
class HealthAnswer:
    body: str
    date: datetime | None
    """What the hub's clock said, in whole seconds."""
    local_s: float
    """What this machine's clock said at that moment."""


class HubProbe(HubClient):
    """The agent's own way to the hub, and a look at its plainest answer."""

    async def health_answer(self) -> HealthAnswer:
        before_s = time.time()
        response = await self.call("GET", "/health")
        local_s = (before_s + time.time()) / 2
        return HealthAnswer(response.text.strip(), _date(response.headers.get("Date")), local_s)


async def check_hub(config: NodeConfig) -> tuple[list[Check], HealthAnswer | None]:
    """The hub's answer is None if it is not a hub's."""
    async with HubProbe.connect(config.server_url, config.token) as hub:
        try:
            async with asyncio.timeout(HUB_ANSWERS_WITHIN_S):
                answer = await hub.health_answer()
        except (HubError, TimeoutError) as error:
            return [judge_failure(config.server_url, error)], None
        if answer.body != "OK":
            return [_not_a_hub(config.server_url, f"it says {answer.body[:40]!r}")], None
        return [
            ok(REACHED, f"{config.server_url} answers"),
            await _check_token(hub, config),
        ], answer


async def _check_token(hub: HubClient, config: NodeConfig) -> Check:
    try:
        async with asyncio.timeout(HUB_ANSWERS_WITHIN_S):
            answer = await hub.wait_for_task(
                platform=platform_of(config.architecture or platform.machine()) or PLATFORMS[0],
                runtime=config.runtime,
                node_id=config.node_id or "doctor",
                version=None,
                wait_s=0,
            )
    except TokenRefused as error:
        return from_error(TOKEN, error)
    except HubError as error:
        return from_error(TOKEN, error, fix="Look at the hub's log: it answers, but not this")
    except TimeoutError:
        return problem(
            TOKEN,
            f"no answer within {HUB_ANSWERS_WITHIN_S:.0f} s",
            fix="Look at the hub's log: it may wait for its Redis",
        )
    task = answer.task
    now = f"the task now is {task.task_name!r}" if task else "there is no task for this node now"
    return ok(TOKEN, f"accepted; {now}")


def judge_failure(server_url: str, error: HubError | TimeoutError) -> Check:
    if isinstance(error, HubRefused):
        return _not_a_hub(server_url, error.cause)
    if isinstance(error, TimeoutError):
        return problem(
            REACHED,
            f"{server_url}: no answer within {HUB_ANSWERS_WITHIN_S:.0f} s",
            fix="Check that the hub runs, and that no firewall is between",
        )
    if "CERTIFICATE" in error.cause:
        return from_error(
            REACHED,
            error,
            fix="Check this machine's date ('date'): a wrong one makes a good certificate look bad;"
            " else renew the hub's certificate",
        )
    return from_error(
        REACHED,
        error,
        fix="Check server_url in gridnode.toml, that the hub runs, and that no firewall is between",
    )


def _not_a_hub(server_url: str, why: str) -> Check:
    return problem(REACHED, f"{server_url} is not a ComputeHub: {why}", fix=_NOT_A_HUB_FIX)


def _date(header: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(header) if header else None
    except ValueError:
        return None
