"""How fast do plain consumers work through the gateway, and how fast straight on Redis?

one-by-one   BRPOP, then LPUSH, for each item
batches      LPOP of 100 items, then one LPUSH of 100

Two consumers on two cores, which they share with Redis and, through the gateway, with the agent.
Straight on Redis, a consumer that is killed loses what it has in hand; through the gateway nothing
is lost and nothing comes twice. The sides are measured in turn, and their ratio round by round; so
is where the time goes: CPU of all that take part, and what Redis is asked to do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from benchmarks.plain_consumers import (
    IN_BATCHES,
    ONE_BY_ONE,
    Command,
    Grid,
    Window,
    in_turn,
    ratios,
    show_cost,
    show_speed,
)
from benchmarks.report import SPREAD, Table, only_figures, print_machine, say, spread

BY_HAND, PINNED, GATEWAY = "by hand", "by hand, pinned", "through the gateway"


@dataclass(frozen=True)
class _Part:
    title: str
    command: Command
    fastest_per_s: int
    """How fast the fastest side can be expected to be: so long must the queue last."""
    aim_per_s: str = ""
    aim_ratio: str = ""


PARTS = {
    "one-by-one": _Part(
        "two consumers, item by item", ONE_BY_ONE, 40_000, aim_ratio="1.0, no less than 0.8"
    ),
    "batches": _Part("two consumers, batches of 100", IN_BATCHES, 1_500_000, aim_per_s="100,000"),
}


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("parts", nargs="*", default=list(PARTS))
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a round")
    chosen = arguments.parse_args()
    with Grid(slots=2) as grid:
        print_machine(redis_url=grid.server.url)
        for name in chosen.parts:
            _measure(grid, PARTS[name], chosen.rounds, chosen.seconds)


def _measure(grid: Grid, part: _Part, rounds: int, seconds: float) -> None:
    connections = 0
    items = int(part.fastest_per_s * (seconds + 1.0))

    def by_hand(*, is_pinned: bool) -> Window:
        grid.fill(items)
        with grid.by_hand(part.command, is_pinned=is_pinned) as processes:
            return grid.measure(processes, seconds)

    def through_gateway() -> Window:
        nonlocal connections
        grid.fill(items)
        with grid.through_gateway(part.command) as processes:
            window = grid.measure(processes, seconds)
            connections = max(connections, grid.connections())
        return window

    found = in_turn(
        {
            BY_HAND: lambda: by_hand(is_pinned=False),
            PINNED: lambda: by_hand(is_pinned=True),
            GATEWAY: through_gateway,
        },
        rounds,
    )
    show_speed(f"{part.title}: {rounds} rounds", found, {GATEWAY: part.aim_per_s})
    table = Table("the gateway's rate, as a multiple of that", *SPREAD)
    for side in (BY_HAND, PINNED):
        table.add(side, *spread(ratios(found[GATEWAY], found[side]), 2), aim=part.aim_ratio)
    table.print()
    show_cost(part.title, found)
    say(f"connections of the agent to Redis: {connections}\n")


if __name__ == "__main__":
    main()
