"""Everything is killed in the middle of everything, and each item is done once.

The short form of `python -m tests.chaos`, which is for longer runs. CHAOS_SEED repeats a plan.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import SystemRandom

import pytest

from tests.chaos.cast import Settings
from tests.chaos.plan import KINDS
from tests.chaos.run import run
from tests.support.fixtures import require
from tests.support.redis_server import unavailable_reason


@pytest.mark.timeout(300)
def test_every_item_has_one_result_or_one_dead_letter_whatever_is_killed(tmp_path: Path) -> None:
    require(unavailable_reason())
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(1_000_000))
    settings = Settings(items=20_000, seconds=30, seed=seed, nodes=2, lease_s=3, patience_s=1)

    outcome = run(settings, evidence=tmp_path)

    print(outcome.ledger)
    assert outcome.is_good, f"CHAOS_SEED={seed}, evidence in {tmp_path}\n{outcome.ledger}"
    assert set(outcome.events) == set(KINDS)
