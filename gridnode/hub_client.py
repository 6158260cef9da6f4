"""The calls to the hub. Nothing else in the agent knows HTTP.

HubError
├── HubUnreachable   no answer, or not a hub's: try again later
├── UnknownNode      the hub does not know this node (any more): register again
└── HubRefused       trying the same again cannot help
    └── TokenRefused
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

# httpx imports its own command line if rich is there, and rich costs 6 MB of a Pi's memory.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
# redis-py measures itself if OpenTelemetry is there, as beside FastAPI. Nobody reads that here.
sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type]

import httpx  # noqa: E402
from pydantic import BaseModel, TypeAdapter, ValidationError  # noqa: E402

from gridcore.errors import EXIT_CONFIG, GridCoreError  # noqa: E402
from gridcore.wire import (  # noqa: E402
    STOP_HEADER,
    VERSION_HEADER,
    GoodbyeRequest,
    HeartbeatReply,
    HeartbeatRequest,
    RegisterReply,
    RegisterRequest,
    RuntimeName,
    TaskConfig,
)

ANSWER_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 10.0

_Model = TypeVar("_Model", bound=BaseModel)
_MAYBE_TASK: TypeAdapter[TaskConfig | None] = TypeAdapter(TaskConfig | None)


class HubError(GridCoreError):
    """The hub did not do what was asked."""


class HubUnreachable(HubError):
    """No answer, or not a hub's."""


class UnknownNode(HubError):
    """The hub does not know this node."""


class HubRefused(HubError):
    """The hub answered that it will not."""


class TokenRefused(HubRefused):
    """The hub has another token."""

    exit_code = EXIT_CONFIG


@dataclass(frozen=True)
class TaskAnswer:
    task: TaskConfig | None
    version: str | None
    """None from a hub that cannot be waited at, and has to be asked now and then."""
    stop_requested: bool


class HubClient:
    def __init__(self, http: httpx.AsyncClient, server_url: str) -> None:
        self._http = http
        self._server_url = server_url

    @classmethod
    @asynccontextmanager
    async def connect(cls, server_url: str, token: str) -> AsyncIterator[Self]:
        async with httpx.AsyncClient(
            base_url=server_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # The certificates cost 10 MB that a node on a plain address can spare.
            verify=server_url.startswith("https:"),
            trust_env=False,
        ) as http:
            yield cls(http, server_url)

    async def register(self, request: RegisterRequest) -> RegisterReply:
        response = await self.call(
            "POST", "/gridnode/register", json=request.model_dump(mode="json")
        )
        return self._read(RegisterReply, response)

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatReply:
        response = await self.call(
            "POST", "/gridnode/heartbeat", json=request.model_dump(mode="json")
        )
        return self._read(HeartbeatReply, response)

    async def wait_for_task(
        self,
        *,
        platform: str,
        runtime: RuntimeName,
        node_id: str,
        version: str | None,
        wait_s: float,
    ) -> TaskAnswer:
        """At once without a version; else as soon as the hub's is another, `wait_s` at most."""
        params: dict[str, str | float] = {
            "platform": platform,
            "runtime": runtime,
            "node_id": node_id,
        }
        if version is not None:
            params |= {"version": version, "wait": wait_s}
        response = await self.call(
            "GET",
            "/gridnode/task",
            params=params,
            timeout=httpx.Timeout(wait_s + ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )
        try:
            task = _MAYBE_TASK.validate_json(response.content)
        except ValidationError as error:
            raise self._not_a_hub(
                f"its answer is not a task ({error.errors()[0]['msg']})"
            ) from None
        return TaskAnswer(
            task=task,
            version=response.headers.get(VERSION_HEADER),
            stop_requested=response.headers.get(STOP_HEADER) == "true",
        )

    async def goodbye(self, node_id: str, agent: str) -> None:
        request = GoodbyeRequest(node_id=node_id, agent=agent)
        await self.call("POST", "/gridnode/goodbye", json=request.model_dump())

    async def call(self, method: str, path: str, **details: Any) -> httpx.Response:
        what = f"{method} {self._server_url}{path}"
        try:
            response = await self._http.request(method, path, **details)
        except httpx.HTTPError as error:
            raise HubUnreachable(
                what,
                cause=f"no answer ({type(error).__name__}: {error})",
                next_step="Check server_url in gridnode.toml, and that the hub runs",
            ) from error
        if response.is_success:
            return response
        said = _said(response)
        if response.status_code == 401:
            raise TokenRefused(
                what,
                cause="the hub does not accept this node's token",
                next_step="Copy the token from the hub's computehub.toml into gridnode.toml",
            )
        if response.status_code == 404 and path in ("/gridnode/heartbeat", "/gridnode/goodbye"):
            raise UnknownNode(what, cause=said, next_step="The node registers again")
        if response.status_code >= 500 or response.status_code == 429:
            raise HubUnreachable(what, cause=said, next_step="The node tries again")
        raise HubRefused(
            what,
            cause=f"the hub answered {response.status_code}: {said}",
            next_step="Check server_url and the versions of hub and node",
        )

    def _read(self, model: type[_Model], response: httpx.Response) -> _Model:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            raise self._not_a_hub(
                f"its answer makes no sense ({error.errors()[0]['msg']})"
            ) from None

    def _not_a_hub(self, cause: str) -> HubUnreachable:
        return HubUnreachable(
            f"talking to {self._server_url}",
            cause=cause,
            next_step="Check that server_url in gridnode.toml names a ComputeHub",
        )


def _said(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
