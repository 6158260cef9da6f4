"""Programs that tasks run in tests, as commands for process nodes: plain redis-py, nothing of ours.

Each is a small script; what it shows, it shows in the output queue or in Redis keys.
"""

import sys

_CONNECT = """
import os, sys, time, signal, redis
source = redis.Redis.from_url(os.environ["INPUT_REDIS_URL"], decode_responses=True)
target = redis.Redis.from_url(os.environ["OUTPUT_REDIS_URL"], decode_responses=True)
take = lambda: source.rpop(os.environ["INPUT_QUEUE"])
give = lambda result: target.lpush(os.environ["OUTPUT_QUEUE"], result)
"""


def python(script: str) -> list[str]:
    """The command that runs this script after connecting: `take()`, `give(result)`."""
    return [sys.executable, "-c", _CONNECT + script]


DRAIN = python("""
while (item := take()) is not None:
    give(f"{item}:{len(os.sched_getaffinity(0))}")
""")
"""Takes items until the queue is empty, then exits 0; says how many cores it may use."""

ONE_ITEM = python("""
item = take()
if item is not None:
    give(item)
""")
"""Takes one item, then exits 0."""

WAIT_FOR_SIGNAL = python("""
def on_term(*_):
    give("terminated")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
take()
give("started")
while True:
    signal.pause()
""")
"""Runs until SIGTERM, and tells both."""

IGNORE_SIGTERM = python("""
signal.signal(signal.SIGTERM, lambda *_: give("ignored"))
take()
give("started")
while True:
    signal.pause()
""")

CRASH = python("""
take()
give("crashing")
print("about to fail")
raise ValueError("item 7 is bad")
""")

EAT_MEMORY = python("""
take()
give("eating")
block = bytearray(512 * 1024 * 1024)
give("survived")
""")
