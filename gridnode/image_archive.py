"""An image as `docker save` writes it: a layer, a configuration and a list of both, in one tar."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

_CREATED = "1970-01-01T00:00:00Z"
"""A real time would make each image another one."""


@dataclass(frozen=True)
class Link:
    target: str


Tree = dict[str, bytes | Path | Link]
"""By path, without a leading slash; folders follow from what they hold. A Path is a file of this
machine, whose content is meant."""


def read_content(_path: str, content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def write_archive(
    archive: IO[bytes],
    tag: str,
    tree: Tree,
    *,
    platform: Mapping[str, str],
    settings: Mapping[str, object],
    made_by: str,
    content_of: Callable[[str, bytes | Path], bytes] = read_content,
) -> None:
    """`platform` names the architecture as images do, `settings` is what containers of the image
    start with: Cmd, Env, User and so on. `content_of` gives what a path of the tree holds."""
    with tempfile.TemporaryFile() as layer:
        _write_layer(layer, tree, content_of)
        layer_size = layer.tell()
        layer.seek(0)
        layer_id = hashlib.file_digest(layer, "sha256").hexdigest()
        config = _json(
            {
                **platform,
                "os": "linux",
                "created": _CREATED,
                "config": settings,
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_id}"]},
                "history": [{"created": _CREATED, "created_by": made_by}],
            }
        )
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        layer_name = f"{layer_id}.tar"
        manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]}]
        layer.seek(0)
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, config_name, io.BytesIO(config), len(config))
            _add(tar, layer_name, layer, layer_size)
            listed = _json(manifest)
            _add(tar, "manifest.json", io.BytesIO(listed), len(listed))


def _write_layer(
    layer: IO[bytes], tree: Tree, content_of: Callable[[str, bytes | Path], bytes]
) -> None:
    folders = {str(folder) for path in tree for folder in PurePosixPath(path).parents} - {"."}
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in sorted(folders | {"tmp"}):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for path, content in sorted(tree.items(), key=lambda item: item[0]):
            if isinstance(content, Link):
                entry = tarfile.TarInfo(path)
                entry.type = tarfile.SYMTYPE
                entry.linkname = content.target
                tar.addfile(entry)
            else:
                data = content_of(path, content)
                _add(tar, path, io.BytesIO(data), len(data))


def _add(tar: tarfile.TarFile, path: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.mode = 0o755  # a program or a library may be any of them
    entry.size = size
    tar.addfile(entry, content)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
