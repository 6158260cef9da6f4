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
@click.option("--port", default=8080, show_default=True, help="Where the hub listens.")
@click.option(
    "--host",
    default="0.0.0.0",
    show_default=True,
    help="127.0.0.1 keeps the hub, and with it the grid, on this machine.",
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
    if engine.is_there:
        click.echo(f"Tasks will run in containers: {engine.said}.")
    else:
        click.echo(f"Tasks will run as plain processes, without isolation. {engine.said}")
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runtime = "docker" if engine.is_there else "process"
    grid = LocalGrid(folder, host=host, port=port, runtime=runtime)
    try:
        with grid:
            click.echo(_greeting(grid))
            while True:
                time.sleep(LOOK_EVERY_S)
                grid.check()
    except KeyboardInterrupt:
        click.echo("The grid has stopped; 'gridcore up' starts it again, tasks and queues and all.")


def _greeting(grid: LocalGrid) -> str:
    return f"""
The grid is up. Ctrl-C stops it.

  API          {grid.url}/docs
  Token        {grid.token}
  Logs         {grid.log_path("computehub")}
               {grid.log_path("gridnode")}

Try it from another terminal:

  curl -H "Authorization: Bearer {grid.token}" {grid.url}/api/nodes

The queues' Redis, for pushing items and taking results:

  {ENVIRONMENT_VARIABLE}={grid.folder} computehub redis-url
"""
