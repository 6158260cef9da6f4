"""The `gridnode` command."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

import click

from gridcore import __version__, logs
from gridcore.errors import GridCoreError

_COMMANDS = {
    "doctor": "gridnode.commands.doctor:doctor",
    "engine": "gridnode.commands.engine:engine",
    "python-image": "gridnode.commands.python_image:python_image",
}


class _LazyGroup(click.Group):
    """Imports a command when it is asked for: a node need not hold in memory what it never runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_LazyGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="gridnode")
@click.option("-v", "--verbose", is_flag=True, help="Log what is for developers, too.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Runs a node: one container per core, for the task that the hub names."""
    logs.setup("DEBUG" if verbose else "INFO")
    if context.invoked_subcommand is None:
        run()


def run() -> None:
    from gridnode.config import load_or_explain
    from gridnode.service import serve

    config, path = load_or_explain(os.environ)
    asyncio.run(serve(config, path, os.environ))


def main() -> None:
    try:
        cli()
    except GridCoreError as error:
        click.echo(f"gridnode: {error}", err=True)
        sys.exit(1)
    except BaseExceptionGroup as group:
        ours, others = group.split(GridCoreError)
        if ours is None or others is not None:
            raise
        click.echo(f"gridnode: {ours.exceptions[0]}", err=True)
        sys.exit(1)
