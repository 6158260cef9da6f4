"""The `gridnode` command."""

from __future__ import annotations

import asyncio
import gc
import logging
import os

import click

from gridcore import __version__, command_line, logs
from gridcore.event_loop import new_event_loop

_COMMANDS = {
    "doctor": "gridnode.commands.doctor:doctor",
    "engine": "gridnode.commands.engine:engine",
    "python-image": "gridnode.commands.python_image:python_image",
    "worker-image": "gridnode.commands.worker_image:worker_image",
}


@click.group(cls=command_line.LazyGroup, lazy=_COMMANDS, invoke_without_command=True)
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
    # What is here now stays. The gateway makes many small objects and no cycles of them, so that
    # the collector, which would look through them thousands of times a second, has nothing to find.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(config, path, os.environ))
    # All is in order. A call to an engine that is stuck cannot be called off, and its thread
    # would hold up the end of this process for as long.
    logging.shutdown()
    os._exit(0)


def main() -> None:
    command_line.run(cli, "gridnode")
