"""The SDK on a grid whose Redis is full, or has in it what nobody can read."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import marshal

import pytest
import redis

import gridcore
from tests.acceptance.sdk_programs import LONG_S, Counter, square
from tests.sdk.signals import WITHIN_S
from tests.support.grid import Grid
from tests.support.waiting import wait_until


def test_calls_wait_while_redis_is_full_and_all_of_them_end(
    grid: Grid, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter.remote()
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 1
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4
    with redis.Redis.from_url(grid.redis.url) as store:
        (alive,) = store.scan_iter(f"sdk:*:{gridcore.get_runtime_context().job_id}")
        store.config_set("maxmemory", 1)
        methods = [counter.increment.remote() for _ in range(20)]
        calls = [square.remote(n) for n in range(100)]
        wait_until(lambda: store.ttl(alive) < 27, within_s=WITHIN_S, what="a sign of life is due")
        wait_until(lambda: store.ttl(alive) > 28, within_s=WITHIN_S, what="it was given")
        assert not any(ref.done() for ref in (*methods, *calls))
        store.config_set("maxmemory", 0)
        assert gridcore.get(methods, timeout=LONG_S) == list(range(2, 22))
        assert gridcore.get(calls, timeout=LONG_S) == [n * n for n in range(100)]
    assert caplog.text.count("refuses") == 1


def test_letters_that_cannot_be_read_do_no_harm(
    grid: Grid, caplog: pytest.LogCaptureFixture
) -> None:
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4
    with redis.Redis.from_url(grid.redis.url) as store:
        (up,) = store.scan_iter(f"sdk:*:{gridcore.get_runtime_context().job_id}:up")
        unknown = marshal.dumps((7, [("no such message",)], []))
        store.xadd(up, {"l": b"what is this?"})
        store.xadd(up, {"l": marshal.dumps(("somebody", 1, [unknown]), 4)})
    assert gridcore.get(square.remote(3), timeout=WITHIN_S) == 9
    wait_until(
        lambda: "cannot be read" in caplog.text and "led to an error" in caplog.text,
        within_s=WITHIN_S,
        what="they are reported",
    )
    assert gridcore.get(square.remote(4), timeout=WITHIN_S) == 16
