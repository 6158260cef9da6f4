"""A file that is larger than the memory allowed, read, cleaned and summed up in chunks.

Shows a pipeline: each chunk goes through three calls, each of which gets the result of the one
before it without a detour over this program. No more than a few chunks are under way at a time, so
memory stays small however large the file is. Chunks travel as values: no call opens the file.

    python examples/pipeline.py --file-mb 500 --memory-mb 32 --time
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

import gridcore

IN_FLIGHT = 4
GROWTH = 20
"""How many bytes of memory a byte of text may take while it is objects of Python."""

Reading = tuple[str, float]
Sums = dict[str, tuple[int, float, float]]


@gridcore.remote
def parsed(chunk: bytes) -> list[Reading]:
    """Lines that are no readings get the value NaN."""
    readings = []
    for line in chunk.decode().splitlines():
        station, _, value = line.partition(",")
        try:
            readings.append((station, float(value)))
        except ValueError:
            readings.append((station, float("nan")))
    return readings


@gridcore.remote
def cleaned(readings: list[Reading]) -> list[Reading]:
    """Without what no thermometer has ever shown."""
    return [reading for reading in readings if -90 <= reading[1] <= 60]


@gridcore.remote
def summed_up(readings: list[Reading]) -> Sums:
    sums: Sums = {}
    for station, value in readings:
        count, total, most = sums.get(station, (0, 0.0, value))
        sums[station] = (count + 1, total + value, max(most, value))
    return sums


def merge(into: Sums, more: Sums) -> None:
    for station, (count, total, most) in more.items():
        before = into.get(station, (0, 0.0, most))
        into[station] = (before[0] + count, before[1] + total, max(before[2], most))


def chunks_of(path: Path, size: int) -> Iterator[bytes]:
    """Whole lines, so many that they are a little more than `size`."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk + file.readline()


def generate(path: Path, size: int) -> int:
    """Readings of ten stations, every hundredth of them broken. How many lines there are."""
    chance = random.Random(1)
    lines = 0
    with path.open("w") as file:
        while file.tell() < size:
            for _ in range(1000):
                station = int(chance.random() * 10)
                value = f"{station + 20 * chance.random():.1f}"
                file.write(f"station-{station},{'broken' if lines % 100 == 99 else value}\n")
                lines += 1
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file-mb", type=int, default=12)
    parser.add_argument("--memory-mb", type=int, default=8)
    parser.add_argument("--time", action="store_true")
    chosen = parser.parse_args()
    gridcore.init()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.csv"
        lines = generate(path, chosen.file_mb * 1_000_000)
        memory = chosen.memory_mb * 1_000_000
        begun = time.perf_counter()
        sums, chunks, grown = process(path, memory // (IN_FLIGHT * GROWTH))
        seconds = time.perf_counter() - begun

    print(f"{lines:,} lines in {chunks} chunks, {sum(count for count, *_ in sums.values()):,} good")
    for station, (count, total, most) in sorted(sums.items())[:3]:
        print(f"{station}: {count:,} readings, mean {total / count:.2f}, highest {most:.1f}")
    print(f"this program took no more than {chosen.memory_mb} MB for it: {grown <= memory}")
    if chosen.time:
        print(f"{seconds:.2f} s, it took {grown / 1e6:.1f} MB")


def process(path: Path, chunk_bytes: int) -> tuple[Sums, int, int]:
    """The sums, how many chunks there were, and by how much this process grew."""
    sums: Sums = {}
    chunks = 0
    me = psutil.Process()
    before = most = me.memory_info().rss
    running: list[gridcore.ObjectRef[Sums]] = []
    for chunk in chunks_of(path, chunk_bytes):
        chunks += 1
        if len(running) == IN_FLIGHT:
            done, running = gridcore.wait(running)
            merge(sums, gridcore.get(done[0]))
        running.append(summed_up.remote(cleaned.remote(parsed.remote(chunk))))
        most = max(most, me.memory_info().rss)
    for rest in gridcore.get(running):
        merge(sums, rest)
    return sums, chunks, most - before


if __name__ == "__main__":
    main()
