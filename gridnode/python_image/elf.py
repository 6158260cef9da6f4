"""As much of the format of Linux programs and libraries as it takes to put them into an image."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

ARM = 40
X86_64 = 62
AARCH64 = 183

_IS_64_BIT = 2
_LITTLE_ENDIAN = 1
_INTERP = 3

_FILE_HEADER = {1: struct.Struct("<16sHHIIIIIHHHHHH"), 2: struct.Struct("<16sHHIQQQIHHHHHH")}
_SEGMENT_HEADER = {1: struct.Struct("<IIIIIIII"), 2: struct.Struct("<IIQQQQQQ")}
"""For 32 and 64 bits. All platforms of ours are little-endian."""


class NotElf(ValueError):
    """Not a program or library of a platform that images are made for."""


@dataclass(frozen=True)
class Elf:
    machine: int
    loader: str | None
    """The path of the dynamic loader, which a program names and a library does not."""
    stripped: bytes = field(repr=False)
    """The file without what only linkers and debuggers read.

    A loader looks at the segments alone. Symbols and debug information come after them, and are
    most of a Python that somebody built without stripping it.
    """


def read(data: bytes) -> Elf:
    """Raises NotElf."""
    if len(data) < 64 or not data.startswith(b"\x7fELF") or data[5] != _LITTLE_ENDIAN:
        raise NotElf("it is no little-endian ELF file")
    bits = data[4]
    header = _FILE_HEADER[bits]
    fields = list(header.unpack_from(data))
    machine, segments_at, segment_bytes, count = fields[2], fields[5], fields[9], fields[10]
    end, loader = segments_at + count * segment_bytes, None
    for number in range(count):
        segment = _SEGMENT_HEADER[bits].unpack_from(data, segments_at + number * segment_bytes)
        start, size = (segment[2], segment[5]) if bits == _IS_64_BIT else (segment[1], segment[4])
        end = max(end, start + size)
        if segment[0] == _INTERP:
            loader = data[start : start + size].rstrip(b"\0").decode()
    # No table of sections, no section, no table of their names.
    fields[6] = fields[12] = fields[13] = 0
    return Elf(machine, loader, header.pack(*fields) + data[header.size : end])
