"""The hub, as a driver needs it: one task for all drivers that want the same image, and a look at
it from time to time, so that a call that nobody takes is no riddle."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gridcore.redis_urls import hide_password
from gridcore.sdk.context import Node
from gridcore.sdk.errors import NotConnected
from gridcore.sdk.grid import keys
from gridcore.sdk.grid.messages import PYTHON, Item

if TYPE_CHECKING:
    from gridcore.sdk.grid.engine import GridEngine
    from gridcore.sdk.grid.place import GridPlace

CALL_WITHIN_S = 15.0

LOOK_EVERY_S = 2.0

QUIET_S = 6.0
"""Calls that wait for their first container so long are a reason to say why."""

JOINED_S = 10.0

MAX_ATTEMPTS = 3

MEGABYTE = 1024 * 1024

COMMAND = ["python3", "-m", "gridcore.sdk.grid.runner"]

DEFAULT_IMAGE = f"gridcore-worker:{PYTHON}"

_log = logging.getLogger("gridcore")


class Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Hub:
    """Its calls; raises OSError if it cannot be reached, Refused if it does not want to."""

    def __init__(self, url: str, token: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"hub={url!r} is no address: write http://host:8080")
        self.url = url.rstrip("/")
        self._token = token

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http or https, see above
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_WITHIN_S) as answer:  # noqa: S310
                return json.load(answer)
        except (http.client.HTTPException, ValueError) as error:
            # It ended in the middle of its answer, or something else answers in its place.
            raise ConnectionError(f"its answer cannot be read ({error!r})") from error
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            try:
                detail = json.loads(text)["detail"]
            except (ValueError, KeyError, TypeError):
                detail = text[:500]
            raise Refused(error.code, str(detail)) from None


class Task:
    """The task that this driver's calls are items of."""

    def __init__(self, hub: Hub, image: str | None) -> None:
        self._hub = hub
        self._image = image or DEFAULT_IMAGE
        self.name = f"python-{PYTHON}"
        if image is not None:
            self.name += f"-{hashlib.sha256(image.encode()).hexdigest()[:8]}"
        self.queue = f"{self.name}:input"
        self.redis_url = ""
        self.fleet: list[Node] = []
        """When it joined."""
        self._stop = threading.Event()
        self._told: set[str] = set()
        self._problems: list[str] = []
        """Of nodes."""

    @classmethod
    def join(cls, url: str, token: str, image: str | None) -> Task:
        """Submits it if no other driver has; raises NotConnected."""
        task = cls(Hub(url, token), image)
        try:
            task.submit()
            found = task._hub.call("GET", f"/api/tasks/{task.name}/queues")
            task.fleet = task.nodes()
        except Refused as refusal:
            raise _cannot_join(url, token, refusal) from None
        except OSError as error:
            raise NotConnected(
                f"Connecting to the hub at {url}",
                cause=str(getattr(error, "reason", error)),
                next_step="Check that it runs and that this machine reaches it",
            ) from None
        task.redis_url = found["input_redis"]
        return task

    def submit(self) -> None:
        body = {
            "name": self.name,
            "image": self._image,
            "command": COMMAND,
            "ack": "explicit",
            "keys": keys.allowed(self.queue),
            "constants": keys.constants(self.queue),
            "alone_after_failure": False,
            "max_attempts": MAX_ATTEMPTS,
            "auto_advance": True,
        }
        try:
            self._hub.call("POST", "/api/tasks", body)
        except Refused as refusal:
            if refusal.status != 409:
                raise

    @property
    def shown_redis_url(self) -> str:
        return hide_password(self.redis_url)

    def nodes(self) -> list[Node]:
        """Raises OSError or Refused."""
        self._problems = []
        found: list[Node] = []
        for node in self._hub.call("GET", "/api/nodes"):
            self._problems += filter(None, [node["error"]])
            found.append(
                Node(
                    id=node["id"],
                    hostname=node["hostname"],
                    architecture=node["architecture"],
                    cpus=float(node["parallelism"]),
                    memory=node["parallelism"] * (node.get("container_memory") or 0) * MEGABYTE,
                    resources={},
                    alive=node["status"] == "Online",
                )
            )
        return found

    # A thread of its own, since an answer may take long

    def watch(self, engine: GridEngine) -> None:
        quiet_s = 0.0
        begun_at = time.monotonic()
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                details = self._hub.call("GET", f"/api/tasks/{self.name}")
                if details["state"] == "completed":
                    # Not if it ended with the driver before this one, just as this one joined.
                    if time.monotonic() - begun_at > JOINED_S:
                        self._tell(
                            "moved",
                            "the fleet has been moved on from the SDK's task; it is at the end of"
                            " the line again",
                        )
                    self.submit()
                if details["queues"]["dead"]:
                    self._settle_dead_letters(engine)
                fleet = self.nodes()
                engine.in_turn(_set_fleet(fleet))
                quiet_s = quiet_s + LOOK_EVERY_S if engine.is_waiting else 0.0
                if quiet_s >= QUIET_S:
                    self._say_why_nothing_runs(details)
            except Refused as refusal:
                if refusal.status == 404:
                    self._submit_again()
            except OSError:
                # Calls go by Redis, and do not need it.
                self._tell("away", f"the hub at {self._hub.url} does not answer; calls go on")

    def stop_watching(self) -> None:
        self._stop.set()

    def _submit_again(self) -> None:
        try:
            self.submit()
        except (Refused, OSError) as error:
            self._tell("gone", f"the SDK's task was deleted, and cannot be submitted: {error}")

    def _settle_dead_letters(self, engine: GridEngine) -> None:
        path = f"/api/tasks/{self.name}/dead-letters"
        settled: list[str] = []
        for letter in self._hub.call("GET", path)["dead_letters"]:
            item = _item_of(letter)
            if item is None or item.job != engine.job:
                continue
            settled.append(letter["id"])
            why = (letter["message"] or "Its container ended").rstrip(".")
            why = why[:1].lower() + why[1:]
            if letter["attempts"] > 1:
                why += f" ({letter['attempts']} times)"
            engine.in_turn(
                _dead(item, why, is_out_of_memory=letter["out_of_memory"]),
            )
        if settled:
            self._hub.call("POST", f"{path}/discard", {"ids": settled})

    def _say_why_nothing_runs(self, details: dict[str, Any]) -> None:
        if details["state"] == "pending":
            running = self._hub.call("GET", "/api/tasks")["current"]
            self._tell(
                f"behind {running}",
                f"the fleet works on {running!r}; calls run when it is done, or moved on from:"
                f" POST {self._hub.url}/api/tasks/next",
            )
            return
        reasons = [details["waiting_for"] or ""]
        reasons += [failure["message"] for failure in details["failures"][:1]]
        reasons += self._problems
        reason = next((text for text in reasons if text), "")
        if reason:
            self._tell(reason, f"no container has begun with this program's calls yet: {reason}")

    def _tell(self, what: str, text: str) -> None:
        """Once."""
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s", text)


def _set_fleet(fleet: list[Node]) -> Callable[[GridPlace], None]:
    def change(place: GridPlace) -> None:
        place.set_fleet(fleet)

    return change


def _dead(item: Item, why: str, *, is_out_of_memory: bool) -> Callable[[GridPlace], None]:
    return lambda place: place.on_dead_letter(item, why, is_out_of_memory=is_out_of_memory)


def _item_of(letter: dict[str, Any]) -> Item | None:
    payload = letter["payload_base64"]
    try:
        return Item.decoded(base64.b64decode(payload)) if payload else None
    except ValueError:
        return None


def _cannot_join(url: str, token: str, refusal: Refused) -> NotConnected:
    if refusal.status == 401:
        return NotConnected(
            f"Connecting to the hub at {url}",
            cause="it does not know this token" if token else "it wants a token, and there is none",
            next_step="Pass the one in its computehub.toml: gridcore.init(hub, token=...), or set"
            " GRIDCORE_TOKEN",
        )
    return NotConnected(
        f"Submitting the SDK's task to the hub at {url}",
        cause=f"it answered {refusal.status}: {refusal}",
        next_step="The hub must be as new as this program",
    )
