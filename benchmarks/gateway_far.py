"""How fast does a plain consumer work when Redis is 20 ms away?

Straight on that Redis each BRPOP and each LPUSH costs a round trip. Through the gateway the
consumer talks to its own node, which is far from Redis in its place: it takes items ahead and
commits results in bulk. One consumer on either side, one item at a time.

The distance is made by a proxy that delays bytes and keeps their order (delaying_proxy.py), since
not every kernel has netem; the time of a PING through it is shown.
"""

from __future__ import annotations

import argparse
import time

import redis

from benchmarks.delaying_proxy import far_away
from benchmarks.plain_consumers import ONE_BY_ONE, Grid, Window, in_turn, ratios, show_speed
from benchmarks.report import SPREAD, Table, only_figures, percentile, print_machine, spread

FASTEST_PER_S = 30_000
STRAIGHT, GATEWAY = "straight", "through the gateway"
PINGS = 50


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--ms", type=float, default=20.0, help="of a round trip")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=5.0, help="of a round")
    chosen = arguments.parse_args()
    with (
        Grid(slots=1) as grid,
        far_away(grid.server.port, round_trip_ms=chosen.ms) as port,
    ):
        print_machine(redis_url=grid.server.url)
        url = f"redis://127.0.0.1:{port}/0"
        items = int(FASTEST_PER_S * (chosen.seconds + 2.0))

        def straight() -> Window:
            grid.fill(items)
            with grid.by_hand(ONE_BY_ONE, is_pinned=True, url=url) as processes:
                return grid.measure(processes, chosen.seconds, warm_up=5)

        def through_gateway() -> Window:
            grid.fill(items)
            with grid.through_gateway(ONE_BY_ONE, url=url) as processes:
                return grid.measure(processes, chosen.seconds)

        pings_ms = _pings_ms(url)
        found = in_turn({STRAIGHT: straight, GATEWAY: through_gateway}, chosen.rounds)
    show_speed(f"one consumer, Redis {chosen.ms:g} ms away: {chosen.rounds} rounds", found, {})
    table = Table("and besides", *SPREAD)
    table.add("times as fast", *spread(ratios(found[GATEWAY], found[STRAIGHT])), aim="100")
    table.add("a PING, ms", *(f"{percentile(pings_ms, p):.1f}" for p in (0, 50, 100)))
    commands = [w.client_commands_per_item for w in found[GATEWAY]]
    table.add("commands/item through the gateway", *spread(commands, 4), aim="0.2 at most")
    table.print()


def _pings_ms(url: str) -> list[float]:
    took_ms = []
    with redis.Redis.from_url(url) as client:
        for _ in range(PINGS):
            began = time.perf_counter()
            client.ping()
            took_ms.append(1000 * (time.perf_counter() - began))
    return took_ms[1:]


if __name__ == "__main__":
    main()
