"""Every refusal as one kind of body: {"detail": what to do about it, "code": what it is}."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from computehub.fleet import UnknownNode
from computehub.redis_store import StoreUnavailable
from computehub.task_list import NothingToDo, TaskConflict, UnknownTask
from computehub.task_redis import TaskRedisUnavailable
from gridcore.errors import GridCoreError
from gridcore.wire import Problem

_STATUS_AND_CODE: dict[type[GridCoreError], tuple[int, str]] = {
    NothingToDo: (400, "nothing_to_do"),
    UnknownTask: (404, "unknown_task"),
    UnknownNode: (404, "unknown_node"),
    TaskConflict: (409, "conflict"),
    StoreUnavailable: (503, "redis_unavailable"),
    TaskRedisUnavailable: (503, "task_redis_unavailable"),
}

RETRY_AFTER_S = 2


def problem(status: int, code: str, detail: str) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse(Problem(detail=detail, code=code).model_dump(), status, headers)


def add_handlers(app: FastAPI) -> None:
    for error_class in _STATUS_AND_CODE:
        app.add_exception_handler(error_class, _explain_known)
    app.add_exception_handler(RequestValidationError, _explain_invalid)
    app.add_exception_handler(HTTPException, _explain_no_such_call)


def _explain_known(_request: Request, error: Exception) -> JSONResponse:
    status, code = _STATUS_AND_CODE[type(error)]  # type: ignore[index]
    return problem(status, code, str(error))


def _explain_no_such_call(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path}: {error.detail}; /docs lists the calls"
    return problem(error.status_code, "no_such_call", said)


def _explain_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    sentences = []
    # pydantic's own message would repeat the input, and that may hold a password.
    for part in error.errors():
        where = ".".join(str(step) for step in part["loc"][1:] if step != "[key]")
        said = part["msg"].removeprefix("Value error, ")
        if part["type"] == "extra_forbidden":
            said = "there is no such field; /docs lists those that there are"
        if part["type"] == "json_invalid":
            where, said = "", f"the body is not JSON: {part['ctx']['error']}"
        if part["type"] == "missing" and not where:
            said = "the body is empty: send a JSON object"
        if part["type"] == "list_type":
            said = 'it must be a list, as in ["python3", "program.py"]'
        if part["type"] == "model_attributes_type":
            said = "the body is not JSON: send it with 'Content-Type: application/json'"
        sentences.append(f"{where}: {said}" if where else said)
    return problem(422, "invalid", "; ".join(sentences))
