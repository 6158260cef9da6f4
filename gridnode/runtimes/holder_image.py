"""The image of the containers that hold a slot's network: one program, which does nothing.

A network namespace lives as long as something is in it, and a slot's runs come and go. The program
that stays is made here, because no registry may be needed for it and no image of a task holds one
that is sure to be there: an ELF file with a header, and three instructions that wait for ever.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from dataclasses import dataclass

from gridcore.platforms import platform_of
from gridnode.image_archive import write_archive
from gridnode.runtimes.docker_engine import Engine

PROGRAM = "gridcore-network"
"""Its name in a list of processes."""

_LOAD = 1
_GNU_STACK = 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1
_EXECUTABLE_FILE = 2
_CURRENT_VERSION = 1

_LARGEST_PAGE_BYTES = 0x10000
"""Of ARM kernels; elsewhere pages are smaller, and what fits the large ones fits them."""

_LOADED_AT = 0x400000


@dataclass(frozen=True)
class _Machine:
    image: dict[str, str]
    """The fields that say in an image's configuration for which machine it is."""
    elf_number: int
    elf_flags: int
    is_64_bit: bool
    code: bytes


_MACHINES = {
    "linux/amd64": _Machine(
        {"architecture": "amd64"},
        elf_number=62,
        elf_flags=0,
        is_64_bit=True,
        # mov eax, 34 (pause); syscall; jmp to the first
        code=bytes.fromhex("b822000000 0f05 ebf7"),
    ),
    "linux/arm64": _Machine(
        {"architecture": "arm64"},
        elf_number=183,
        elf_flags=0,
        is_64_bit=True,
        # There is no pause: ppoll of nothing. mov x0..x3, 0; mov x8, 73; svc 0; b to the first
        code=struct.pack(
            "<7I",
            *(0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003),
            *(0xD2800928, 0xD4000001, 0x17FFFFFA),
        ),
    ),
    "linux/arm/v7": _Machine(
        {"architecture": "arm", "variant": "v7"},
        elf_number=40,
        elf_flags=0x05000000,  # EABI 5: how system calls are made
        is_64_bit=False,
        # mov r7, 29 (pause); svc 0; b to the first
        code=struct.pack("<3I", 0xE3A0701D, 0xEF000000, 0xEAFFFFFC),
    ),
}


def program_for(platform: str) -> bytes:
    """An executable that waits until it is killed; `platform` is one of gridcore.platforms."""
    machine = _MACHINES[platform]
    header = struct.Struct("<16sHHIQQQIHHHHHH" if machine.is_64_bit else "<16sHHIIIIIHHHHHH")
    # Fields of a segment: type, (flags,) offset, two addresses, two sizes, (flags,) alignment.
    segment = struct.Struct("<IIQQQQQQ" if machine.is_64_bit else "<IIIIIIII")
    starts_at = header.size + 2 * segment.size
    size = starts_at + len(machine.code)

    def segment_of(kind: int, flags: int, address: int, size: int, alignment: int) -> bytes:
        if machine.is_64_bit:
            return segment.pack(kind, flags, 0, address, address, size, size, alignment)
        return segment.pack(kind, 0, address, address, size, size, flags, alignment)

    identity = struct.pack("<4s3B", b"\x7fELF", 2 if machine.is_64_bit else 1, 1, 1)
    return b"".join(
        [
            header.pack(
                *(identity, _EXECUTABLE_FILE, machine.elf_number, _CURRENT_VERSION),
                _LOADED_AT + starts_at,
                *(header.size, 0, machine.elf_flags),
                *(header.size, segment.size, 2, 0, 0, 0),
            ),
            segment_of(_LOAD, _READ | _EXECUTE, _LOADED_AT, size, _LARGEST_PAGE_BYTES),
            # Without this one the kernel gives it a stack that can be executed, and says so.
            segment_of(_GNU_STACK, _READ | _WRITE, 0, 0, 16),
            machine.code,
        ]
    )


def is_there_one_for(architecture: str) -> bool:
    return platform_of(architecture) in _MACHINES


def tag_for(architecture: str) -> str:
    """The image's name; another program gets another one."""
    platform = platform_of(architecture)
    assert platform is not None, "is_there_one_for() comes first"
    return f"{PROGRAM}:{hashlib.sha256(program_for(platform)).hexdigest()[:12]}"


async def load_holder_image(engine: Engine, architecture: str) -> None:
    """Gives the engine the image, for its own architecture: it is never emulated."""
    platform = platform_of(architecture)
    assert platform is not None, "is_there_one_for() comes first"
    with tempfile.TemporaryFile() as archive:
        write_archive(
            archive,
            tag_for(architecture),
            {PROGRAM: program_for(platform)},
            platform=_MACHINES[platform].image,
            # It is the first process of its container, and so deaf to all other signals: an engine
            # that shuts down would wait 10 s for each.
            settings={"StopSignal": "SIGKILL"},
            made_by="gridnode",
        )
        archive.seek(0)
        await engine.load_image(archive)
