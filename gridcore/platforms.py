"""What a machine calls itself, and what an image registry calls it."""

from __future__ import annotations

PLATFORM_OF_ARCHITECTURE = {
    "x86_64": "linux/amd64",
    "amd64": "linux/amd64",
    "aarch64": "linux/arm64",
    "arm64": "linux/arm64",
    "armv7l": "linux/arm/v7",
    "arm": "linux/arm/v7",
}

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")

_SPELLINGS = {
    "linux/arm64/v8": "linux/arm64",
    "linux/arm": "linux/arm/v7",
} | {
    f"linux/{architecture}": platform for architecture, platform in PLATFORM_OF_ARCHITECTURE.items()
}


def platform_of(architecture: str) -> str | None:
    """The image platform of a machine, or None where no image can be meant for it."""
    return PLATFORM_OF_ARCHITECTURE.get(architecture.lower())


def canonical_platform(name: str) -> str:
    """The one spelling we use; raises ValueError with the ones we know."""
    lowered = name.lower()
    found = lowered if lowered in PLATFORMS else _SPELLINGS.get(lowered)
    if found is None:
        raise ValueError(f"unknown platform {name!r}: use one of {', '.join(PLATFORMS)}")
    return found
