"""Images for tests, made here: no registry is asked for anything.

An image is one layer around a static busybox, given to the engine as an archive like those that
`docker save` writes. No two have the same layer, so a pull of one always fetches it.
"""

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cloudpickle
import docker

import gridcore
from tests.support.docker_engine import LABELS

Architecture = Literal["amd64", "arm64"]

CONSUMER = Path(__file__).with_name("consumer.sh")
APPLETS = (
    "ash awk cat chmod cp cut date dd dirname echo env expr false free grep head hostname id ip "
    "kill ls mkdir mktemp mv nc nproc ping printf ps pwd rm rmdir sed seq sh sleep sort stat tail "
    "tee test timeout top touch tr true uname wc wget whoami yes"
)


class PushTarget(Protocol):
    """A registry, as far as a push needs to know it."""

    @property
    def address(self) -> str: ...

    auth_config: dict[str, str] | None


class Busybox:
    """The static busybox of each architecture, as tests/packages.sh left it."""

    def __init__(self, cache_folder: Path) -> None:
        self._folder = cache_folder

    def path(self, architecture: Architecture) -> Path:
        return self._folder / f"busybox-{architecture}"

    def unavailable_reason(self, architecture: Architecture) -> str | None:
        if self.path(architecture).exists():
            return None
        return f"no {self.path(architecture)} (tests/packages.sh fetches it)"


class ArmPython:
    """Debian's Python for arm64, as tests/packages.sh left it."""

    def __init__(self, cache_folder: Path) -> None:
        self._archive = cache_folder / "python-arm64.tar"

    def unavailable_reason(self) -> str | None:
        if self._archive.exists():
            return None
        return f"no {self._archive} (tests/packages.sh fetches it)"

    def files(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """And the links among them."""
        files: dict[str, bytes] = {}
        links: dict[str, str] = {}
        with tarfile.open(self._archive) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() else None
                if content is not None:
                    files[entry.name] = content.read()
                elif entry.issym():
                    links[entry.name] = entry.linkname
        return files, links

    def version(self) -> str:
        with tarfile.open(self._archive) as archive:
            target = archive.getmember("usr/bin/python3").linkname
        return target.removeprefix("python")


def sdk_image(client: docker.APIClient, python: ArmPython) -> str:
    """What the SDK's calls run in, for arm64."""
    files, links = python.files()
    for module in (cloudpickle, gridcore):
        folder = Path(module.__file__ or "").parent
        about = folder.parent.glob(f"{module.__name__}-*.dist-info/METADATA")
        for file in (*folder.rglob("*.py"), *folder.rglob("*.lua"), *about):
            name = f"usr/lib/python3/dist-packages/{file.relative_to(folder.parent)}"
            files[name] = file.read_bytes()
    tag = f"gridcore-test/sdk-arm64:{uuid.uuid4().hex[:8]}"
    load_image(
        client,
        tag,
        architecture="arm64",
        files=files,
        links=links,
        env={"PATH": "/usr/bin", "PYTHONUNBUFFERED": "1"},
    )
    return tag


def busybox_image(
    client: docker.APIClient,
    busybox: Busybox,
    *,
    architecture: Architecture = "amd64",
    files: Mapping[str, bytes] | None = None,
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = ("sh",),
    env: Mapping[str, str] | None = None,
    payload_bytes: int = 0,
) -> str:
    """Loads an image with a shell and its commands; returns its tag.

    A payload is random, so that the layer does not shrink on its way through a registry.
    """
    tag = f"gridcore-test/{uuid.uuid4().hex[:12]}:latest"
    load_image(
        client,
        tag,
        architecture=architecture,
        files={
            "bin/busybox": busybox.path(architecture).read_bytes(),
            "etc/passwd": b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            "payload": os.urandom(max(payload_bytes, 16)),
            **(files or {}),
        },
        links={f"bin/{applet}": "busybox" for applet in APPLETS.split()},
        entrypoint=entrypoint,
        cmd=cmd,
        env=env,
    )
    return tag


def consumer_image(
    client: docker.APIClient,
    busybox: Busybox,
    *,
    architecture: Architecture = "amd64",
    payload_bytes: int = 0,
) -> str:
    """Loads an image whose program drains the input queue, as consumer.sh says; returns its tag."""
    return busybox_image(
        client,
        busybox,
        architecture=architecture,
        files={"bin/consumer": CONSUMER.read_bytes()},
        cmd=("/bin/consumer",),
        payload_bytes=payload_bytes,
    )


def load_image(
    client: docker.APIClient,
    tag: str,
    *,
    architecture: Architecture,
    files: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Gives the engine an image of these files.

    Their paths have no leading slash; all of them are executable.
    """
    environment = {"PATH": "/bin", **(env or {})}
    layer = _layer(files, links or {})
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2025-01-01T00:00:00Z",
            "config": {
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(cmd) or None,
                "Labels": LABELS,
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    archive = _tar(
        {
            config_name: config,
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
    # The type stubs leave this method untyped.
    loader: Any = client
    _raise_error_in(loader.load_image(archive))


def push_image(client: docker.APIClient, tag: str, registry: PushTarget) -> str:
    """Moves a loaded image to a registry; returns its name there, without the registry's address.

    The engine keeps nothing of it, so that a pull has to fetch it.
    """
    name = tag.rpartition(":")[0]
    there = f"{registry.address}/{name}"
    client.tag(tag, there, "latest", force=True)
    # Without a configuration docker-py looks for one in the home folder.
    auth_config = registry.auth_config or {"username": "", "password": ""}
    _raise_error_in(client.push(there, "latest", stream=True, decode=True, auth_config=auth_config))
    client.remove_image(f"{there}:latest", force=True)
    client.remove_image(tag, force=True)
    return f"{name}:latest"


def _raise_error_in(stream: Any) -> None:
    for message in stream:
        if "error" in message:
            raise RuntimeError(message["error"])


def _layer(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        folders = {str(folder) for path in (*files, *links) for folder in Path(path).parents}
        for folder in sorted(folders - {"."}):
            layer.addfile(_entry(folder, tarfile.DIRTYPE, mode=0o755))
        layer.addfile(_entry("tmp", tarfile.DIRTYPE, mode=0o1777))
        for path, content in files.items():
            entry = _entry(path, tarfile.REGTYPE, mode=0o755)
            entry.size = len(content)
            layer.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = _entry(path, tarfile.SYMTYPE, mode=0o777)
            entry.linkname = target
            layer.addfile(entry)
    return buffer.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = _entry(path, tarfile.REGTYPE, mode=0o644)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _entry(path: str, kind: bytes, *, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.mode = mode
    return entry
