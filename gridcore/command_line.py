"""What our three commands have in common."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click

from gridcore.errors import GridCoreError


class LazyGroup(click.Group):
    """Imports a sub-command when it is asked for: `--version` and an idle agent need none."""

    def __init__(self, *args: object, lazy: Mapping[str, str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._lazy = lazy
        """Command -> "module:attribute"."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def run(command: click.Command, name: str) -> None:
    """Runs it as a program: our own errors become one sentence and their exit code."""
    try:
        command(prog_name=name)
    except GridCoreError as error:
        _fail(name, error)
    except BaseExceptionGroup as group:
        ours, others = group.split(GridCoreError)
        if ours is None or others is not None:
            raise
        _fail(name, _first(ours))


def _first(group: BaseExceptionGroup[GridCoreError]) -> GridCoreError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _fail(name: str, error: GridCoreError) -> None:
    click.echo(f"{name}: {error}", err=True)
    sys.exit(error.exit_code)
