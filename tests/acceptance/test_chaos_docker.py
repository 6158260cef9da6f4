"""The same as test_chaos on a real engine, with fewer items: containers are killed, and agents that
leave theirs running."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import docker
import pytest

from gridnode.python_image import build_python_image
from gridnode.runtimes.docker_engine import Engine
from tests.chaos.cast import Settings
from tests.chaos.plan import KINDS
from tests.chaos.run import run
from tests.chaos.stages import CONSUMER, IN_IMAGE, Containers
from tests.support.docker_engine import LABELS, DockerEngine
from tests.support.fixtures import require
from tests.support.redis_server import unavailable_reason

TAG = "gridcore-test/chaos:1"


@pytest.fixture
def consumer_of_chaos(docker_engine: DockerEngine) -> Iterator[str]:
    """An image of a plain program that uses redis-py."""

    async def build() -> None:
        engine = Engine(docker_engine.host)
        await engine.connect()
        try:
            await build_python_image(
                engine,
                TAG,
                command=["python", IN_IMAGE],
                packages=["redis", "hiredis"],
                files={IN_IMAGE: CONSUMER.read_bytes()},
                labels=LABELS,
            )
        finally:
            await engine.aclose()

    asyncio.run(build())
    yield TAG
    with docker_engine.client() as client:
        client.remove_image(TAG, force=True)


@pytest.mark.timeout(600)
def test_every_item_has_one_result_or_one_dead_letter_whatever_is_killed(
    tmp_path: Path,
    docker_engine: DockerEngine,
    docker_client: docker.APIClient,
    consumer_of_chaos: str,
) -> None:
    require(unavailable_reason())
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(1_000_000))
    settings = Settings(items=2_500, seconds=25, seed=seed, nodes=2, lease_s=4, patience_s=1)
    stage = Containers(docker_engine, docker_client, consumer_of_chaos)

    outcome = run(settings, evidence=tmp_path, stage=stage)

    print(outcome.ledger)
    assert outcome.is_good, f"CHAOS_SEED={seed}, evidence in {tmp_path}\n{outcome.ledger}"
    assert set(outcome.events) == set(KINDS)
