"""python -m tests.chaos: a run by hand, as long as you like."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import SystemRandom

from tests.chaos.cast import Settings
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="of chaos; then all settles")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to repeat it")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--hubs", type=int, default=2)
    parser.add_argument("--lease", type=float, default=4.0, help="lease time in seconds")
    parser.add_argument("--patience", type=float, default=None, help="consumers' socket_timeout")
    parser.add_argument("--style", default="-", help="of consumers: a function in consumer.py")
    parser.add_argument("--contrast", action="store_true", help="straight on Redis")
    parser.add_argument("--keep", action="store_true", help="the evidence, also when all is well")
    chosen = parser.parse_args()
    seed = SystemRandom().randrange(1_000_000) if chosen.seed is None else chosen.seed
    settings = Settings(
        items=chosen.items,
        seconds=chosen.seconds,
        seed=seed,
        nodes=chosen.nodes,
        slots=chosen.slots,
        hubs=chosen.hubs,
        lease_s=chosen.lease,
        patience_s=chosen.patience,
        style=chosen.style,
        is_direct=chosen.contrast,
    )
    evidence = Path(tempfile.mkdtemp(prefix=f"chaos-seed-{seed}-"))
    print(f"seed {seed}, evidence in {evidence}", flush=True)
    began_s = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    with redirect_stdout(StringIO()):  # the ends of all logs, which are in the evidence
        outcome = run(settings, evidence=evidence, tell=tell)
    print(outcome.ledger)
    if outcome.is_good and not chosen.keep:
        shutil.rmtree(evidence)
    else:
        print(f"The evidence is in {evidence}")
    # The contrast is to lose something.
    return 0 if outcome.is_good or chosen.contrast else 1


if __name__ == "__main__":
    sys.exit(main())
