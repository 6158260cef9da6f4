"""What anybody might write who has read the first page of redis-py: two results for each item.

Run as `consumer.py FOLDER WORK_S PATIENCE_S ENDS STYLE`. Without a style each start is written in
another way. An item is a number, and sometimes a word on what it does to this program.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

folder, work_s, patience_s, ends, wanted_style = sys.argv[1:]
settings: dict[str, Any] = {"socket_timeout": float(patience_s)} if patience_s != "-" else {}


def connect(url: str) -> Any:
    if random.random() < 0.5:
        # Made like this, redis-py sends again what was not answered in time: ten times.
        parts = urlsplit(url)
        named: dict[str, Any] = {"host": parts.hostname, "port": parts.port}
        return redis.Redis(**named, password=parts.password, **settings)
    return redis.Redis.from_url(url, **settings)


source = connect(os.environ["INPUT_REDIS_URL"])
target = source
items, results = os.environ["INPUT_QUEUE"], os.environ["OUTPUT_QUEUE"]
wait_s = 1 if ends == "ends" else 0


def work(item: bytes, give: Callable[[bytes, bytes], None]) -> bool:
    """True if this is a time to end in order."""
    number, _, deed = item.partition(b" ")
    take_time()
    if deed == b"slow":
        time.sleep(random.uniform(0.05, 0.4))
    if deed == b"poison" or (deed == b"crash" and is_the_first_time(number)):
        target.lpush(results, number + b" 1")
        print(f"item {number.decode()} is bad")
        sys.stdout.flush()
        os._exit(1)  # also from a thread
    give(number + b" 1", number + b" 2")
    return deed == b"leave"


def take_time() -> None:
    time.sleep(random.expovariate(2 / float(work_s)))


def is_the_first_time(number: bytes) -> bool:
    try:
        (Path(folder) / number.decode()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def one_by_one(first: bytes, second: bytes) -> None:
    target.lpush(results, first)
    take_time()
    target.lpush(results, second)


def in_one_command(first: bytes, second: bytes) -> None:
    take_time()
    target.rpush(results, first, second)


def in_a_transaction(first: bytes, second: bytes) -> None:
    with target.pipeline() as pipeline:
        pipeline.lpush(results, first)
        take_time()
        pipeline.lpush(results, second)
        pipeline.execute()


def loop(give: Callable[[bytes, bytes], None], client: Any = source) -> None:
    while popped := client.brpop(items, wait_s):
        if work(popped[1], give):
            client.close()
            break


def loop_with_a_timeout(give: Callable[[bytes, bytes], None]) -> None:
    while True:
        popped = source.brpop(items, 1)
        if work(popped[1], give) if popped else ends == "ends":
            break


def until_it_is_empty(give: Callable[[bytes, bytes], None]) -> None:
    while (item := source.rpop(items)) is not None:
        if work(item, give):
            break


def in_batches(give: Callable[[bytes, bytes], None]) -> None:
    while batch := source.rpop(items, 5):
        times_to_end = [work(item, give) for item in batch]
        if any(times_to_end):
            break


def in_two_threads(give: Callable[[bytes, bytes], None]) -> None:
    """Each with a client of its own."""
    _in_threads([(give, connect(os.environ["INPUT_REDIS_URL"])) for _ in range(2)])


def in_two_threads_of_one_client(give: Callable[[bytes, bytes], None]) -> None:
    """They take their connections out of one pool, now this one, now that one: so nobody can tell
    whose item a pop ends. Not safe with ack = "next", and only run when it is named."""
    _in_threads([(give, source) for _ in range(2)])


def _in_threads(arguments: list[tuple[Callable[[bytes, bytes], None], Any]]) -> None:
    threading.excepthook = end_at_once
    threads = [threading.Thread(target=loop, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def end_at_once(error: threading.ExceptHookArgs) -> None:
    sys.__excepthook__(error.exc_type, error.exc_value or error.exc_type(), error.exc_traceback)
    sys.stderr.flush()
    os._exit(1)  # or the other thread would go on as if nothing were


STYLES = [loop, loop, loop, loop_with_a_timeout, until_it_is_empty, in_batches, in_two_threads]
if random.random() < 0.3:
    target = connect(os.environ["OUTPUT_REDIS_URL"])
style = random.choice(STYLES) if wanted_style == "-" else globals()[wanted_style]
style(random.choice([one_by_one, one_by_one, in_one_command, in_a_transaction]))
