"""The `gridcore` command."""

from __future__ import annotations

import click

from gridcore import __version__, command_line

_COMMANDS = {
    "demo": "gridcore.local.demo:demo",
    "up": "gridcore.local.up:up",
}


@click.group(cls=command_line.LazyGroup, lazy=_COMMANDS)
@click.version_option(__version__, prog_name="gridcore")
def cli() -> None:
    """Crowd computing for millions of small independent items."""


def main() -> None:
    command_line.run(cli, "gridcore")
