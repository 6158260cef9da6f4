"""The HTTP application: routes, refusals and the token around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp

from computehub.api import gridnode, nodes, tasks
from computehub.auth import TokenCheck
from computehub.hub import Hub
from computehub.problems import add_handlers
from gridcore import __version__
from gridcore.wire import Problem


def create_app(hub: Hub, *, token: str) -> ASGIApp:
    app = FastAPI(
        title="IDM-GridCore ComputeHub",
        version=__version__,
        summary="An ordered task list, and the fleet that works on it.",
        redoc_url=None,
        responses={
            401: {"model": Problem, "description": "The token is missing or wrong."},
            422: {"model": Problem, "description": "The request makes no sense, and why."},
            503: {"model": Problem, "description": "Redis is away; nothing is lost."},
        },
    )
    app.state.hub = hub
    add_handlers(app)
    for part in (tasks, nodes, gridnode):
        app.include_router(part.router)

    _describe_token(app)

    @app.get("/health", tags=["health"], response_class=PlainTextResponse)
    async def health() -> str:
        """OK while this process serves, whether or not it can reach Redis."""
        return "OK"

    return TokenCheck(app, token=token)


def _describe_token(app: FastAPI) -> None:
    """Adds the "Authorize" button to /docs; TokenCheck does the asking."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        description = describe()
        description["components"]["securitySchemes"] = {
            "bearerAuth": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"bearerAuth": []}]
        return description

    app.openapi = described  # type: ignore[method-assign]
