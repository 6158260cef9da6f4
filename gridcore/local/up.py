"""`gridcore up`: a small grid on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import click
import platformdirs

from gridcore.config_file import APPLICATION, ENVIRONMENT_VARIABLE
from gridcore.local.grid import Engine, LocalGrid

LOOK_EVERY_S = 0.5


@click.command()
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(1, 65_535),
    help="Where the hub listens.",
)
@click.option(
    "--host",
    default="0.0.0.0",
    show_default=True,
    help="127.0.0.1 keeps everything on this machine; containers could not reach their queues"
    " then, so plain processes do the work.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: Path(platformdirs.user_data_dir(APPLICATION)) / "up",
    help="Where configuration, data and logs are kept.",
)
def up(port: int, host: str, folder: Path) -> None:
    """Starts hub, store and a node on this machine, and leaves them running until Ctrl-C."""
    folder = folder.resolve()
    engine = Engine.look_for()
    with_containers = engine.is_there and host not in ("127.0.0.1", "localhost")
    if with_containers:
        click.echo(f"Tasks will run in containers: {engine.said}.")
    else:
        click.echo("Tasks will run as plain processes, without isolation: submit them with a")
        click.echo('"command" instead of an "image".')
    if not engine.is_there:
        click.echo(f"  ({engine.said})")
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runtime = "docker" if with_containers else "process"
    grid = LocalGrid(folder, host=host, port=port, runtime=runtime)
    try:
        with grid:
            click.echo(_greeting(grid, host, with_containers=with_containers))
            while True:
                time.sleep(LOOK_EVERY_S)
                grid.check()
    except KeyboardInterrupt:
        click.echo("The grid has stopped; 'gridcore up' starts it again, tasks and queues and all.")


def _greeting(grid: LocalGrid, host: str, *, with_containers: bool) -> str:
    reach = (
        "Only this machine can reach it."
        if host in ("127.0.0.1", "localhost")
        else "Other machines can reach it with the token; --host 127.0.0.1 keeps it here."
    )
    image = (
        "\n  gridnode worker-image    # once: the image they run in; --package numpy adds to it"
        if with_containers
        else ""
    )
    return f"""
The grid is up. Ctrl-C stops it. {reach}

  API          {grid.url}/docs
  Token        {grid.token}
  Logs         {grid.log_path("computehub")}
               {grid.log_path("gridnode")}

In another terminal:

  export HUB={grid.url} TOKEN={grid.token}
  export {ENVIRONMENT_VARIABLE}={grid.folder}

  curl -H "Authorization: Bearer {grid.token}" {grid.url}/api/nodes

'computehub redis-url' prints there where to push items and take results.

Calls of Python programs (import gridcore) run on this grid with

  export GRIDCORE_HUB={grid.url} GRIDCORE_TOKEN={grid.token}{image}
"""
