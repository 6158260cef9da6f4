"""What hub, node and users share.

    wire        the messages between hub, nodes and scripts (pydantic)
    platforms   what a machine calls itself, and what an image registry calls it
    redis_urls  reading, hiding and re-addressing redis:// URLs
    config_file where configuration lies, and errors that name file, line and key
    errors      one base class: what was tried, the likely cause, the next step
    logs        one line an event
    cli         the `gridcore` command: `up` and `demo`
    sdk         functions, actors and values on a grid: the public names below
    joblib      joblib's backend, which only who imports it pays for

Nothing here imports `computehub` or `gridnode`; both import this package.
"""

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all of this
if TYPE_CHECKING:
    from gridcore.sdk.actor_pool import ActorPool as ActorPool
    from gridcore.sdk.actors import ActorClass as ActorClass
    from gridcore.sdk.actors import ActorHandle as ActorHandle
    from gridcore.sdk.actors import get_actor as get_actor
    from gridcore.sdk.actors import kill as kill
    from gridcore.sdk.actors import method as method
    from gridcore.sdk.collecting import as_completed as as_completed
    from gridcore.sdk.collecting import cancel as cancel
    from gridcore.sdk.collecting import gather as gather
    from gridcore.sdk.collecting import get as get
    from gridcore.sdk.collecting import put as put
    from gridcore.sdk.collecting import wait as wait
    from gridcore.sdk.decorator import actor as actor
    from gridcore.sdk.decorator import remote as remote
    from gridcore.sdk.errors import ActorDied as ActorDied
    from gridcore.sdk.errors import ActorUnavailable as ActorUnavailable
    from gridcore.sdk.errors import GetTimeout as GetTimeout
    from gridcore.sdk.errors import GridError as GridError
    from gridcore.sdk.errors import NotConnected as NotConnected
    from gridcore.sdk.errors import NotPicklable as NotPicklable
    from gridcore.sdk.errors import ObjectLost as ObjectLost
    from gridcore.sdk.errors import OutOfMemory as OutOfMemory
    from gridcore.sdk.errors import PayloadTooLarge as PayloadTooLarge
    from gridcore.sdk.errors import TaskCancelled as TaskCancelled
    from gridcore.sdk.errors import TaskError as TaskError
    from gridcore.sdk.errors import TaskTimeout as TaskTimeout
    from gridcore.sdk.errors import Unschedulable as Unschedulable
    from gridcore.sdk.errors import VersionMismatch as VersionMismatch
    from gridcore.sdk.errors import WorkerDied as WorkerDied
    from gridcore.sdk.events import events as events
    from gridcore.sdk.executor import Executor as Executor
    from gridcore.sdk.functions import RemoteFunction as RemoteFunction
    from gridcore.sdk.progressing import progress as progress
    from gridcore.sdk.queues import Queue as Queue
    from gridcore.sdk.refs import ObjectRef as ObjectRef
    from gridcore.sdk.session import init as init
    from gridcore.sdk.session import is_initialized as is_initialized
    from gridcore.sdk.session import shutdown as shutdown
    from gridcore.sdk.state import available_resources as available_resources
    from gridcore.sdk.state import cluster_resources as cluster_resources
    from gridcore.sdk.state import get_runtime_context as get_runtime_context
    from gridcore.sdk.state import nodes as nodes
    from gridcore.sdk.state import report_progress as report_progress
    from gridcore.sdk.streaming import ObjectRefGenerator as ObjectRefGenerator

__version__ = "0.1.0"

# Loaded when first used: what only wants the version, or a wire model, should not pay for them.
_HOMES = {
    "ActorClass": "actors",
    "ActorDied": "errors",
    "ActorHandle": "actors",
    "ActorPool": "actor_pool",
    "ActorUnavailable": "errors",
    "Executor": "executor",
    "GetTimeout": "errors",
    "GridError": "errors",
    "NotConnected": "errors",
    "NotPicklable": "errors",
    "ObjectLost": "errors",
    "ObjectRef": "refs",
    "ObjectRefGenerator": "streaming",
    "OutOfMemory": "errors",
    "PayloadTooLarge": "errors",
    "Queue": "queues",
    "RemoteFunction": "functions",
    "TaskCancelled": "errors",
    "TaskError": "errors",
    "TaskTimeout": "errors",
    "Unschedulable": "errors",
    "VersionMismatch": "errors",
    "WorkerDied": "errors",
    "actor": "decorator",
    "as_completed": "collecting",
    "available_resources": "state",
    "cancel": "collecting",
    "cluster_resources": "state",
    "events": "events",
    "gather": "collecting",
    "get": "collecting",
    "get_actor": "actors",
    "get_runtime_context": "state",
    "init": "session",
    "is_initialized": "session",
    "kill": "actors",
    "method": "actors",
    "nodes": "state",
    "progress": "progressing",
    "put": "collecting",
    "remote": "decorator",
    "report_progress": "state",
    "shutdown": "session",
    "wait": "collecting",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found: object = getattr(importlib.import_module(f"gridcore.sdk.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
