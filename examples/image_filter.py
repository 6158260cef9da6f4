"""Blurs and sharpens large pictures, and finds edges in them, in bands.

Shows work on one large value in parts: a call gets a band of rows, with as many more above and
below as its filter reaches, and returns the band filtered. What is sent must be worth it: with a
small radius there is so little to compute that one process is as fast. Needs numpy.

    python examples/image_filter.py --pictures 4K --radius 16 --time
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

import gridcore

Picture = NDArray[np.uint8]

SIZES = {"1080p": (1920, 1080), "2K": (2560, 1440), "4K": (3840, 2160)}

FILTERS = ("blur", "sharpen", "edges")

STRIP = 16
"""Rows that are worked on at a time: they stay in the core's cache, where a whole band would come
from memory once for each pixel of the disc."""


@gridcore.remote
def filtered(band: Picture, name: str, radius: int) -> Picture:
    """The band without its first and last `radius` rows. Pixels beyond a border are as those at it.

    In whole numbers, so that results are the same everywhere, to the last bit.
    """
    reach = 2 * radius
    tops = range(0, len(band) - reach, STRIP)
    return np.concatenate([strip(band[top : top + STRIP + reach], name, radius) for top in tops])


def strip(rows: Picture, name: str, radius: int) -> Picture:
    wide = np.pad(rows, ((0, 0), (radius, radius), (0, 0)), mode="edge").astype(np.int32)
    height, width = len(rows) - 2 * radius, rows.shape[1]
    side = range(-radius, radius + 1)
    disc = [(y + radius, x + radius) for y in side for x in side if y * y + x * x <= radius**2]
    blurred = np.zeros((height, width, 3), np.int32)
    for y, x in disc:
        blurred += wide[y : y + height, x : x + width]
    blurred //= len(disc)
    sharp = wide[radius : radius + height, radius : radius + width]
    if name == "sharpen":
        blurred = 2 * sharp - blurred
    elif name == "edges":
        blurred = 4 * abs(sharp - blurred)
    return blurred.clip(0, 255).astype(np.uint8)


def bands_of(picture: Picture, rows: int, radius: int) -> list[Picture]:
    framed = np.pad(picture, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    return [framed[top : top + rows + 2 * radius] for top in range(0, len(picture), rows)]


def parallel(picture: Picture, name: str, rows: int, radius: int) -> Picture:
    calls = [filtered.remote(band, name, radius) for band in bands_of(picture, rows, radius)]
    return np.concatenate(gridcore.get(calls))


def serial(picture: Picture, name: str, radius: int) -> Picture:
    (whole,) = bands_of(picture, len(picture), radius)
    return filtered.local(whole, name, radius)


def generated(width: int, height: int) -> Picture:
    """Ramps and a pattern: red from the left, green from the top, blue by both."""
    x, y = np.arange(width), np.arange(height)[:, np.newaxis]
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = x * 255 // width
    picture[..., 1] = y * 255 // height
    picture[..., 2] = (x ^ y) % 256
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--radius", type=int, default=3, help="of the disc that is averaged")
    parser.add_argument("--rows", type=int, default=180, help="of a band")
    parser.add_argument("--time", action="store_true", help="compare with one process")
    chosen = parser.parse_args()
    gridcore.init()

    for size in chosen.pictures:
        picture = generated(*SIZES[size])
        for name in FILTERS:
            begun = time.perf_counter()
            result = parallel(picture, name, chosen.rows, chosen.radius)
            seconds = time.perf_counter() - begun
            begun = time.perf_counter()
            expected = serial(picture, name, chosen.radius)
            serial_seconds = time.perf_counter() - begun
            same = np.array_equal(result, expected)
            line = f"{size:5} {name:7} brightness {result.mean():6.2f}, as in one process: {same}"
            if chosen.time:
                line += f"; {seconds:.2f} s, in one process {serial_seconds:.2f} s"
            print(line)


if __name__ == "__main__":
    main()
