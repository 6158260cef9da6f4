"""gridnode.toml can be read and is complete."""

from __future__ import annotations

from collections.abc import Mapping

from gridcore import config_file
from gridnode.config import FILE_NAME, NodeConfig
from gridnode.doctor.check import Check, from_error, ok, problem

NAME = "configuration"


def check_configuration(environment: Mapping[str, str]) -> tuple[Check, NodeConfig | None]:
    """Also the configuration itself, if it can be used. Writes nothing."""
    path = config_file.find(FILE_NAME, environment)
    if path is None:
        places = " or ".join(str(p) for p in config_file.candidates(FILE_NAME, environment))
        return (
            problem(
                NAME,
                f"there is none at {places}",
                fix="Run 'gridnode' once: it writes one, and says what to fill in",
            ),
            None,
        )
    try:
        config = config_file.load(path, NodeConfig)
    except config_file.ConfigError as error:
        return from_error(NAME, error), None
    return ok(NAME, str(path)), config
