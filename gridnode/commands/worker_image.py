"""`gridnode worker-image`: makes the image that the SDK's calls run in."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing

import click

from gridcore.sdk.grid.hub import COMMAND, DEFAULT_IMAGE
from gridnode.python_image import build_python_image
from gridnode.runtimes import docker_host
from gridnode.runtimes.docker_engine import Engine


@click.command("worker-image")
@click.argument("tag", default=DEFAULT_IMAGE)
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="A top-level module of this environment that calls need, and what it requires.",
)
def worker_image(tag: str, packages: tuple[str, ...]) -> None:
    """Makes the image that calls of Python programs (import gridcore) run in.

    It holds this machine's Python, and what drivers expect if they name no image. No registry is
    asked: this machine's engine has it afterwards. For others see deploy/worker.Dockerfile.
    """
    asyncio.run(_build(tag, packages))
    click.echo(f"{tag}: Python {sys.version_info.major}.{sys.version_info.minor}")


async def _build(tag: str, packages: tuple[str, ...]) -> None:
    address = await asyncio.to_thread(docker_host.find, os.environ)
    async with aclosing(Engine(address)) as engine:
        await engine.connect()
        await build_python_image(
            engine,
            tag,
            command=COMMAND,
            packages=["cloudpickle", *packages],
            bare_packages=["gridcore"],
        )
