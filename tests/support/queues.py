"""A task's queues, as their owner uses them."""

import pytest
import redis

from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


class Queue:
    def __init__(self, server: RedisServer, task: str) -> None:
        self.redis = redis.Redis.from_url(server.url, decode_responses=True)
        self._input, self._output = f"{task}:input", f"{task}:output"

    def push(self, *items: str | int) -> None:
        self.redis.lpush(self._input, *items)

    @property
    def waiting(self) -> int:
        return int(self.redis.llen(self._input))

    @property
    def results(self) -> list[str]:
        return [str(result) for result in self.redis.lrange(self._output, 0, -1)]

    def wait_for(self, *results: str, within_s: float = 20) -> None:
        try:
            wait_until(
                lambda: sorted(self.results) == sorted(results),
                within_s=within_s,
                what="all results are there, once",
            )
        except AssertionError as error:
            pytest.fail(f"{error}: {self.results[:20]}, {self.waiting} waiting")

    def wait_for_result(self, result: str, *, times: int = 1, within_s: float = 20) -> None:
        wait_until(
            lambda: self.results.count(result) >= times,
            within_s=within_s,
            what=f"{result!r} comes {times} times",
        )
