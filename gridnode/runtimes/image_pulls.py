"""Getting an image: from its registry if that answers, else the local one.

What decides is how far the registry got. If it never described the image (unreachable, unknown
there, no permission), a local image of that name is good enough: it was built here, or pulled when
the registry was up. If it did and then failed, the local one may be an older one: that is an error,
and is tried again.
"""

from __future__ import annotations

from collections.abc import Callable

from gridcore.logs import EventLog
from gridcore.platforms import canonical_platform
from gridcore.wire import ImagePull
from gridnode.runtimes import ImageUnavailable
from gridnode.runtimes.docker_engine import Engine, ImageFacts

NO_PROGRESS_S = 120.0

log = EventLog("gridnode")


async def get_image(
    engine: Engine,
    reference: str,
    platform: str,
    on_progress: Callable[[ImagePull], None],
    *,
    no_progress_s: float = NO_PROGRESS_S,
) -> str:
    """The id of an image of that platform; raises ImageUnavailable."""
    local = await engine.image(reference)
    if local and not local.digests and _is_for(local, platform):
        # No registry has ever seen it: it was built or loaded here, and can only be here.
        return local.id
    result = await engine.pull(reference, platform, on_progress, no_progress_s=no_progress_s)
    if result.error is None:
        pulled = await engine.image(reference)
        if pulled is None:
            raise _unavailable(reference, "the engine pulled it, and it is not there")
        if not _is_for(pulled, platform):
            raise _wrong_platform(reference, pulled, platform)
        if result.digest and not any(d.endswith(result.digest) for d in pulled.digests):
            raise _unavailable(reference, f"{result.digest} was pulled, but another image is there")
        return pulled.id
    if result.got_through or local is None:
        raise _unavailable(reference, result.error)
    if not _is_for(local, platform):
        raise _wrong_platform(reference, local, platform)
    log.warning("local_image_used", image=reference, reason=result.error)
    return local.id


def _is_for(image: ImageFacts, platform: str) -> bool:
    try:
        return canonical_platform(image.platform) == platform
    except ValueError:
        return False


def _wrong_platform(reference: str, image: ImageFacts, platform: str) -> ImageUnavailable:
    return ImageUnavailable(
        f"getting image {reference}",
        cause=f"it is for {image.platform}, and this node needs {platform}",
        next_step=f'Build one for {platform} and name it in the task\'s "images"',
    )


def _unavailable(reference: str, cause: str) -> ImageUnavailable:
    return ImageUnavailable(
        f"getting image {reference}",
        cause=cause,
        next_step="The node tries again; check the name, the registry and 'docker login'",
    )
