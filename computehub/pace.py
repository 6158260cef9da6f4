"""How often nodes report, and after which silence they are lost."""

from __future__ import annotations

HEARTBEATS_PER_SECOND = 500
"""What a fleet may cost its hub: a sixth of what one hub process serves (benchmarks/)."""


def heartbeat_interval_s(wanted_s: float, online_nodes: int) -> float:
    """What the node would like, but slower where the fleet is too large for that."""
    return max(wanted_s, online_nodes / HEARTBEATS_PER_SECOND)


def lost_after_s(interval_s: float, grace_s: float) -> float:
    """A node is lost when a heartbeat is missed and the time to repeat it is over, too."""
    return interval_s + grace_s
