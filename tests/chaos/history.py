"""What happened to an item, as Redis' append-only file tells it:

    python -m tests.chaos.history EVIDENCE ITEM...

What Redis was made to forget is not in there; it is in forgotten-<n>.aof beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST_SHOWN = 160


def commands(aof: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Each with the time at which it was written."""
    at, when = 0, ""
    while at < len(aof):
        end = aof.index(b"\n", at)
        if aof[at : at + 1] == b"#":
            when, at = aof[at + 1 : end].strip().decode(), end + 1
            continue
        words = []
        count, at = int(aof[at + 1 : end]), end + 1
        for _ in range(count):
            end = aof.index(b"\n", at)
            size, at = int(aof[at + 1 : end]), end + 1
            words.append(aof[at : at + size])
            at += size + 2
        yield when, words


def told(aof: bytes, item: bytes) -> Iterator[str]:
    """Everything that names the item, its results or one of its leases."""
    number = item.partition(b" ")[0]
    results = {number + b" 1", number + b" 2"}
    tokens: set[bytes] = set()
    for position, (when, words) in enumerate(commands(aof)):
        for at, word in enumerate(words):
            head, newline, payload = word.partition(b"\n")
            if newline and payload == item:
                # An entry of lease: its token stands before it; of retry: its token is in it.
                tokens.add(words[at - 1] if words[0].upper() == b"HSET" else head.split()[0])
        if any(word == item or word in results or word in tokens for word in words) or any(
            word.endswith(b"\n" + item) for word in words
        ):
            yield f"{position:8} {when:14} {_shown(words, item, results, tokens)}"


def _shown(words: Sequence[bytes], item: bytes, results: set[bytes], tokens: set[bytes]) -> str:
    kept = [
        word
        for word in words[2:]
        if word == item or word in results or word in tokens or word.endswith(b"\n" + item)
    ]
    text = " ".join(repr(word)[2:-1] for word in [*words[:2], *kept])
    return f"{text[:MOST_SHOWN]}  (of {len(words) - 2})"


def main() -> None:
    folder, *items = sys.argv[1:]
    (file,) = (Path(folder) / "redis" / "appendonlydir").glob("*.incr.aof")
    aof = file.read_bytes()
    for item in items:
        print(f"--- {item}")
        for line in told(aof, item.encode()):
            print(line)


if __name__ == "__main__":
    main()
