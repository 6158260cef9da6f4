"""Memory that processes share: written once, then sealed, and handed on as a descriptor.

A blob is an anonymous file that nobody can name: when its last descriptor and its last mapping are
gone, the kernel frees it. So nothing is left behind whoever is killed, and nobody can change or
shorten what another one reads. Rejected: `multiprocessing.shared_memory`, which is left behind when
a whole group is killed, is destroyed under its readers, and ends in SIGBUS in a full /dev/shm.

On Linux it is a memfd with seals; elsewhere an unlinked temporary file.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gridcore.sdk.errors import PayloadTooLarge

ALIGNMENT = 64
"""A cache line, and what vector instructions like best."""

_HAS_MEMFD = hasattr(os, "memfd_create")
if sys.platform == "linux":
    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Blob:
    """One object's bytes behind a descriptor, which is closed with the last Python reference."""

    __slots__ = ("__weakref__", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def view(self) -> memoryview:
        """Read-only, and valid for as long as something refers to it: do not close anything."""
        # A private mapping, since before Linux 6.7 a sealed memfd cannot be mapped shared even
        # for reading. Nothing is ever copied: nobody can write to it.
        return memoryview(
            mmap.mmap(self.fd, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        )

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def seal(parts: Sequence[tuple[int, bytes | bytearray | memoryview]], size: int) -> Blob:
    """A blob of `size` bytes with each part at its offset."""
    blob = Blob(_anonymous_memory(), size)
    os.ftruncate(blob.fd, size)
    # Not through a mapping, which takes twice as long: a fault for each page, and zeros first.
    for offset, part in parts:
        with memoryview(part).cast("B") as source:
            written = 0
            while written < source.nbytes:
                written += os.pwrite(blob.fd, source[written:], offset + written)
    if _HAS_MEMFD:
        fcntl.fcntl(blob.fd, fcntl.F_ADD_SEALS, _SEALS)
    return blob


def to_disk(blob: Blob, folder: Path) -> None:
    """Moves the bytes to an unlinked file, if they are not in one. Who has a view of them keeps
    it."""
    if not _HAS_MEMFD:
        return
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        fd = os.dup(file.fileno())
    try:
        offset = 0
        while offset < blob.size:
            offset += os.sendfile(fd, blob.fd, offset, blob.size - offset)
    except BaseException:
        os.close(fd)
        raise
    memory, blob.fd = blob.fd, fd
    os.close(memory)


def _anonymous_memory() -> int:
    try:
        return _new_file()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise PayloadTooLarge(
            "Storing a large value",
            cause="each is an open file, and this process has as many as it may",
            next_step="Let go of values that are not needed, put several into one, or raise the"
            " limit of open files (ulimit -Hn)",
        ) from error


def _new_file() -> int:
    if _HAS_MEMFD:
        return os.memfd_create("gridcore", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())
