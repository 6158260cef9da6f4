"""Where configuration lies, and errors that name file, line, key and what was found.

A file is looked for at $IDM_GRIDCORE_CONFIG (a file, or a folder of them), then in the user's
configuration folder, then in /etc/idm-gridcore. The first one found is the only one read.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import platformdirs
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gridcore.errors import EXIT_CONFIG, GridCoreError

ENVIRONMENT_VARIABLE = "IDM_GRIDCORE_CONFIG"
SYSTEM_FOLDER = Path("/etc/idm-gridcore")
APPLICATION = "idm-gridcore"

_Model = TypeVar("_Model", bound=BaseModel)


class ConfigError(GridCoreError):
    """A configuration file that cannot be used as it is."""

    exit_code = EXIT_CONFIG


def candidates(file_name: str, environment: Mapping[str, str]) -> list[Path]:
    """Where the file may lie, the first match winning; the first is also where it is written."""
    named = environment.get(ENVIRONMENT_VARIABLE)
    if named:
        path = Path(named).expanduser()
        return [path if path.suffix == ".toml" else path / file_name]
    return [Path(platformdirs.user_config_dir(APPLICATION)) / file_name, SYSTEM_FOLDER / file_name]


def find(file_name: str, environment: Mapping[str, str]) -> Path | None:
    return next((path for path in candidates(file_name, environment) if path.is_file()), None)


def load(path: Path, model: type[_Model]) -> _Model:
    """The file's values as `model`; raises ConfigError with the line to look at."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"reading {path}",
            cause=str(error),
            next_step="Make it a readable UTF-8 file, or move it away to have a new one written",
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigError(
            f"reading {path}{f', line {line[1]}' if line else ''}",
            cause=f"it is not TOML: {error}",
            next_step='Text values need quotes, as in key = "value"',
        ) from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A section explains the keys that are missing: they stand inside it.
        errors = sorted(error.errors(), key=lambda e: not isinstance(e["input"], dict))
        sections = [e for e in errors if e["type"] == "extra_forbidden"]
        raise _explain(path, text, model, (sections or errors)[0]) from None


def _explain(path: Path, text: str, model: type[BaseModel], error: ErrorDetails) -> ConfigError:
    key = str(error["loc"][0]) if error["loc"] else ""
    line = _line_of(key, text)
    where = f"reading {path}{f', line {line}' if line else ''}, key {key!r}"
    if error["type"] == "missing":
        return ConfigError(
            f"reading {path}, key {key!r}",
            cause="it is not there",
            next_step=f"Add a line: {key} = ...",
        )
    if error["type"] == "extra_forbidden" and isinstance(error["input"], dict):
        return ConfigError(
            f"reading {path}",
            cause=f"there is a section [{key}], and this file has none",
            next_step="Remove that line: every key stands at the top level",
        )
    if error["type"] == "extra_forbidden":
        known = list(model.model_fields)
        close = difflib.get_close_matches(key, known, n=1)
        return ConfigError(
            where,
            cause="there is no such key",
            next_step=f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}",
        )
    found = "a value not shown here" if _is_secret(key) else repr(error["input"])
    return ConfigError(
        where,
        cause=f"found {found}: {error['msg'].removeprefix('Value error, ')}",
        next_step="Change that line and start again",
    )


def _is_secret(key: str) -> bool:
    return key in {"token", "redis_url"}


def _line_of(key: str, text: str) -> int | None:
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]")
    lines = text.splitlines()
    return next((n for n, line in enumerate(lines, start=1) if pattern.match(line)), None)


def write_new(path: Path, text: str) -> None:
    """Puts a file with a secret in place, whole or not at all, readable by its owner only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"writing {path}",
            cause=str(error),
            next_step=f"Name a folder that can be written with {ENVIRONMENT_VARIABLE}=/some/folder",
        ) from error
