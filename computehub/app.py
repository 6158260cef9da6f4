"""The HTTP application: routes, refusals and the token around them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp

from computehub.api import dead_letters, gridnode, nodes, tasks
from computehub.api_page import api_page
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
        docs_url=None,
        redoc_url=None,
        responses={
            400: {"model": Problem, "description": "There is nothing to finish or to go to."},
            401: {"model": Problem, "description": "The token is missing or wrong."},
            404: {"model": Problem, "description": "No such task, node or call."},
            409: {"model": Problem, "description": "The task is in a state that forbids it."},
            422: {"model": Problem, "description": "The request makes no sense, and why."},
            503: {"model": Problem, "description": "A Redis is away; nothing is lost."},
        },
    )
    app.state.hub = hub
    add_handlers(app)
    for part in (tasks, dead_letters, nodes, gridnode):
        app.include_router(part.router)

    _add_pages(app)

    @app.get("/health", tags=["health"], response_class=PlainTextResponse)
    async def health() -> str:
        """OK while this process serves, whether or not it can reach Redis."""
        return "OK"

    return TokenCheck(app, token=token)


def _add_pages(app: FastAPI) -> None:
    """For people with a browser."""
    _describe_token(app)

    @app.get("/", include_in_schema=False)
    async def front() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs(request: Request) -> str:
        return api_page(app.openapi(), str(request.base_url))

    @app.get("/docs/interactive", include_in_schema=False)
    async def interactive() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title=app.title)


def _describe_token(app: FastAPI) -> None:
    """Adds the "Authorize" button to the interactive page; TokenCheck does the asking."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        description = describe()
        description["components"]["securitySchemes"] = {
            "bearerAuth": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"bearerAuth": []}]
        return description

    app.openapi = described  # type: ignore[method-assign]
