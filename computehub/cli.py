"""The `computehub` command."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from computehub.config import FILE_NAME, HubConfig, load_or_create
from computehub.store import settings as store_settings
from gridcore import __version__, command_line, config_file, logs
from gridcore.errors import GridCoreError
from gridcore.event_loop import new_event_loop


@click.group(invoke_without_command=True)
@click.version_option(__version__, prog_name="computehub")
@click.option("-v", "--verbose", is_flag=True, help="Log what is for developers, too.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Runs the hub: the task list, and the fleet that works on it."""
    logs.setup("DEBUG" if verbose else "INFO")
    if context.invoked_subcommand is None:
        serve()


def serve() -> None:
    from computehub import service
    from computehub.store.embedded import EmbeddedStore

    config, path, is_new = load_or_create(os.environ)
    log = logs.EventLog("computehub")
    log.info("config_written" if is_new else "config_read", path=path)
    store = None
    if config.redis_url is None:
        folder = store_settings.data_folder(config.data_dir, os.environ)
        store = EmbeddedStore(folder, host=config.host)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(service.serve(config, store))
    log.info("hub_stopped")


@cli.command("redis-url")
def redis_url() -> None:
    """Prints the URL of the Redis that this machine's hub uses, password and all."""
    path = config_file.find(FILE_NAME, os.environ)
    config = config_file.load(path, HubConfig) if path else None
    if config and config.redis_url:
        click.echo(config.redis_url)
        return
    folder = store_settings.data_folder(config.data_dir if config else None, os.environ)
    settings = store_settings.load(folder)
    if settings is None:
        raise GridCoreError(
            f"reading the hub's own Redis from {folder}",
            cause="no hub has been started here yet",
            next_step="Start one with 'computehub', or name its configuration with"
            " IDM_GRIDCORE_CONFIG",
        )
    click.echo(settings.url)
    if sys.stdout.isatty():
        click.echo("(From another machine, with this one's name for 127.0.0.1.)", err=True)


def main() -> None:
    command_line.run(cli, "computehub")
