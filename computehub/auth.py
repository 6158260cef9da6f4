"""Every call but GET /health needs the token; so do calls that do not exist.

The API's description at /docs and /openapi.json is open as well: a browser cannot send a token
with the address it is given, and the description holds no secret.
"""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from computehub.problems import problem

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/docs/interactive", "/openapi.json"})

MAX_BODY_BYTES = 4_000_000
"""Far more than any heartbeat or task; what is larger is a mistake, or meant to fill the hub."""

_MISSING = (
    "Send the header 'Authorization: Bearer <token>' with the token from the hub's computehub.toml"
)
_WRONG = "This token is not the hub's: copy the one from the hub's computehub.toml"


class TokenCheck:
    """Wraps the application, so that no route can be added that forgets to ask."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            sent = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
            scheme, _, token = sent.partition(b" ")
            is_bearer = scheme.lower() == b"bearer"
            if not is_bearer or not hmac.compare_digest(token.strip(), self._token):
                refusal = problem(401, "unauthorized", _WRONG if is_bearer else _MISSING)
                refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, send)
                return
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH"):
            length = next((v for k, v in scope["headers"] if k == b"content-length"), b"")
            is_chunked = any(k == b"transfer-encoding" for k, _ in scope["headers"])
            if is_chunked or (length.isdigit() and int(length) > MAX_BODY_BYTES):
                too_large = f"Send at most {MAX_BODY_BYTES:,} bytes, with a Content-Length"
                await problem(413, "too_large", too_large)(scope, receive, send)
                return
        await self._app(scope, receive, send)
