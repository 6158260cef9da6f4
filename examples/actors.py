"""Words counted by a counter in shards, and an actor that works off tasks.

Shows actors, which keep something between calls: one each for a part of the words, called by the
calls that read the text; and one that works off its tasks in order, of which a task may fail and
does no harm to those after it.

    python examples/actors.py --shards 3
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter

import gridcore

TEXT = """the quick brown fox jumps over the lazy dog
the dog sleeps and the fox runs
a lazy fox is a quick dog
over and over the fox jumps"""


@gridcore.remote
class Shard:
    """Counts the words that are its own."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, words: list[str]) -> int:
        self._counts.update(words)
        return len(words)

    def most_common(self, count: int) -> list[tuple[str, int]]:
        return self._counts.most_common(count)


@gridcore.remote
def count_words(line: str, shards: list[gridcore.ActorHandle[Shard]]) -> int:
    """Not by `hash`, which is another one in each process."""
    parts: list[list[str]] = [[] for _ in shards]
    for word in line.split():
        parts[zlib.crc32(word.encode()) % len(shards)].append(word)
    added = [shard.add.remote(words) for shard, words in zip(shards, parts, strict=True)]
    return sum(gridcore.get(added))


@gridcore.remote
class TaskProcessor:
    def __init__(self) -> None:
        self._done: list[str] = []

    def run(self, task: str, number: float) -> float:
        result = self._halve(number) if task == "halve" else self._invert(number)
        self._done.append(f"{task} {number:g}")
        return result

    def done(self) -> list[str]:
        return self._done

    def _halve(self, number: float) -> float:
        return number / 2

    def _invert(self, number: float) -> float:
        if number == 0:
            raise ValueError("0 has no inverse")
        return 1 / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=2)
    chosen = parser.parse_args()
    gridcore.init()

    shards = [Shard.remote() for _ in range(chosen.shards)]
    words = sum(gridcore.get([count_words.remote(line, shards) for line in TEXT.splitlines()]))
    found = gridcore.get([shard.most_common.remote(20) for shard in shards])
    ranked = sorted((-count, word) for part in found for word, count in part)
    print(f"{words} words in {chosen.shards} shards, {len(ranked)} different ones")
    print("the most common:", ", ".join(f"{word} {-count}" for count, word in ranked[:4]))

    processor = TaskProcessor.remote()
    tasks = [("halve", 10.0), ("invert", 4.0), ("invert", 0.0), ("halve", 3.0)]
    results = [processor.run.remote(task, number) for task, number in tasks]
    for (task, number), result in zip(tasks, results, strict=True):
        try:
            print(f"{task} {number:g}: {gridcore.get(result):g}")
        except ValueError as error:
            print(f"{task} {number:g}: {error}")
    print("done:", ", ".join(gridcore.get(processor.done.remote())))


if __name__ == "__main__":
    main()
