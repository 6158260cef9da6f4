"""`gridnode engine`: which engine this machine's containers run on."""

from __future__ import annotations

import asyncio
import os

import click

from gridnode.doctor.engine import find_engine


@click.command()
def engine() -> None:
    """Prints which engine a node would use here."""
    click.echo(str(asyncio.run(find_engine(os.environ))))
