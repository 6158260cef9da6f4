"""What `get_image` makes of a registry that fails, on a real engine and a real registry."""

import asyncio

import docker
import pytest

from gridcore.wire import ImagePull
from gridnode.runtimes import ImageUnavailable
from gridnode.runtimes.docker_engine import Engine
from gridnode.runtimes.image_pulls import get_image
from tests.support.docker_engine import DockerEngine
from tests.support.images import Busybox, busybox_image, push_image
from tests.support.registry import FaultyRegistry, Registry


def get(engine: DockerEngine, reference: str, *, no_progress_s: float = 30) -> str:
    """The image's id, as a node gets it."""

    async def get_it() -> str:
        connection = Engine(engine.host)
        try:
            await connection.connect()
            return await get_image(
                connection, reference, "linux/amd64", _ignore, no_progress_s=no_progress_s
            )
        finally:
            await connection.aclose()

    return asyncio.run(get_it())


def _ignore(_progress: ImagePull) -> None:
    pass


def image_id(client: docker.APIClient, tag: str) -> str:
    return str(client.inspect_image(tag)["Id"])  # type: ignore[no-untyped-call]


def test_an_image_that_was_made_here_is_used_without_asking_any_registry(
    docker_engine: DockerEngine, docker_client: docker.APIClient, busybox_tag: str
) -> None:
    assert get(docker_engine, busybox_tag) == image_id(docker_client, busybox_tag)


def test_a_newer_image_of_the_same_name_is_pulled(
    docker_engine: DockerEngine,
    docker_client: docker.APIClient,
    busybox: Busybox,
    registry: Registry,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    reference = f"{registry.address}/{name}"
    older = get(docker_engine, reference)

    newer = push_another(docker_client, busybox, reference)

    assert get(docker_engine, reference) == newer != older


def test_a_layer_that_fails_is_an_error_even_with_an_older_image_at_hand(
    docker_engine: DockerEngine,
    docker_client: docker.APIClient,
    busybox: Busybox,
    registry: Registry,
    faulty_registry: FaultyRegistry,
) -> None:
    """The SDK's own pull() says nothing here and gives the older image."""
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    reference = f"{faulty_registry.address}/{name}"
    older = get(docker_engine, reference)
    newer = push_another(docker_client, busybox, f"{registry.address}/{name}")
    faulty_registry.lose_layers()

    with pytest.raises(ImageUnavailable, match="unknown blob"):
        get(docker_engine, reference)
    faulty_registry.behave()

    assert get(docker_engine, reference) == newer != older


def test_a_pull_without_progress_is_given_up(
    docker_engine: DockerEngine,
    docker_client: docker.APIClient,
    busybox: Busybox,
    registry: Registry,
    faulty_registry: FaultyRegistry,
) -> None:
    tag = busybox_image(docker_client, busybox, payload_bytes=4_000_000)
    name = push_image(docker_client, tag, registry)
    faulty_registry.stall_layers()

    with pytest.raises(ImageUnavailable, match="no progress for 2 s"):
        get(docker_engine, f"{faulty_registry.address}/{name}", no_progress_s=2)


def test_an_image_that_nobody_has_is_named(docker_engine: DockerEngine, registry: Registry) -> None:
    with pytest.raises(ImageUnavailable, match="no/such:image") as raised:
        get(docker_engine, f"{registry.address}/no/such:image")
    assert "docker login" in raised.value.next_step


def test_a_registry_that_is_down_is_named_when_there_is_no_local_image(
    docker_engine: DockerEngine,
) -> None:
    with Registry() as registry:
        address = registry.address
    with pytest.raises(ImageUnavailable, match="connection refused"):
        get(docker_engine, f"{address}/any:image")


def push_another(client: docker.APIClient, busybox: Busybox, reference: str) -> str:
    """Puts another image under that name into the registry alone; its id."""
    made = busybox_image(client, busybox)
    made_id = image_id(client, made)
    repository, _, tag = reference.rpartition(":")
    before = image_id(client, reference) if client.images(name=reference) else None
    client.tag(made, repository, tag)
    for line in client.push(repository, tag=tag, stream=True, decode=True):
        assert "error" not in line, line
    client.remove_image(made, force=True)
    if before:
        client.tag(before, repository, tag)
    else:
        client.remove_image(reference, force=True)
    return made_id
