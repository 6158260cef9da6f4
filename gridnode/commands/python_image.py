"""`gridnode python-image`: makes an image of this machine's Python."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import click

from gridnode.python_image import PythonImageError, build_python_image
from gridnode.runtimes import docker_host
from gridnode.runtimes.docker_engine import Engine


@click.command("python-image")
@click.argument("tag")
@click.argument("command", nargs=-1, required=True)
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="A top-level module of this environment, and what it requires.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="SOURCE:PATH_IN_IMAGE",
    help="A file to put into the image.",
)
def python_image(
    tag: str, command: tuple[str, ...], packages: tuple[str, ...], files: tuple[str, ...]
) -> None:
    """Makes an image of this machine's Python.

    No registry is asked: this machine's engine has the image TAG afterwards, and no other engine
    does. Its containers run COMMAND; put '--' before one that has options.
    """
    contents = dict(_read(file) for file in files)
    asyncio.run(_build(tag, command, packages, contents))
    click.echo(tag)


async def _build(
    tag: str, command: tuple[str, ...], packages: tuple[str, ...], files: dict[str, bytes]
) -> None:
    address = await asyncio.to_thread(docker_host.find, os.environ)
    async with aclosing(Engine(address)) as engine:
        await engine.connect()
        await build_python_image(engine, tag, command=command, packages=packages, files=files)


def _read(file: str) -> tuple[str, bytes]:
    source, colon, path_in_image = file.rpartition(":")
    if not colon or not source or not path_in_image.startswith("/"):
        raise click.BadParameter(
            f"{file!r} is not SOURCE:PATH_IN_IMAGE, as in worker.py:/app/worker.py",
            param_hint="--file",
        )
    try:
        return path_in_image, Path(source).read_bytes()
    except OSError as error:
        raise PythonImageError(
            f"putting {source} into the image",
            cause=error.strerror or str(error),
            next_step="Name a file that this user can read",
        ) from error
