"""Who may reap, when, and where it looks: the reaper's decisions, without Redis."""

import pytest

from computehub.licence import Licence
from computehub.reach import Reach, Seen
from computehub.watched_queues import WatchedQueue, WatchedQueues
from gridcore.wire import TaskSpec


def seen(at_s: float, **details: object) -> Seen:
    known = {"redis_s": 5_000.0 + at_s, "run_id": "one", "uptime_s": 1e6}
    return Seen(at_s=at_s, **(known | details))  # type: ignore[arg-type]


def looked_every_second(reach: Reach, *, until_s: int) -> Reach:
    for at_s in range(until_s + 1):
        reach.saw(seen(at_s))
    return reach


def test_the_reach_of_a_redis_lasts_from_the_first_look_to_the_last() -> None:
    reach = Reach(gap_s=10)
    assert reach.lasted_s() == 0
    assert looked_every_second(reach, until_s=40).lasted_s() == 40


@pytest.mark.parametrize(
    ("now", "lasted_s"),
    [
        (seen(45), 45),
        (seen(50), 50),
        (seen(51), 0),
        (seen(41, run_id="another"), 0),
        (seen(41, uptime_s=3.0), 3),
        (seen(41, redis_s=5_041.0 + 60), 0),
        (seen(41, redis_s=5_041.0 - 60), 0),
        (seen(41, redis_s=5_041.0 + 5), 41),
        (seen(41, run_id=None, uptime_s=None), 0),
    ],
    ids=[
        "a missed look",
        "several missed looks",
        "a gap",
        "another server",
        "a restart",
        "a clock set forward",
        "a clock set back",
        "a clock that is mended a little",
        "a permission that was taken away",
    ],
)
def test_reach_begins_anew_after_whatever_may_have_kept_nodes_from_renewing(
    now: Seen, lasted_s: float
) -> None:
    reach = looked_every_second(Reach(gap_s=10), until_s=40)
    reach.saw(now)
    assert reach.lasted_s() == lasted_s


def test_where_a_server_may_not_be_asked_about_itself_its_answers_must_do() -> None:
    reach = Reach(gap_s=10)
    for at_s in range(31):
        reach.saw(seen(at_s, run_id=None, uptime_s=None))
    assert reach.lasted_s() == 30


def test_only_who_holds_the_lock_may_reap_and_only_after_a_lease_time_of_all() -> None:
    licence = Licence(lease_s=30, lock_s=5)
    assert not licence.permits(100, reached_s=100)
    licence.renew(100, served_s=29)
    assert not licence.permits(100, reached_s=100)
    licence.renew(101, served_s=30)
    assert licence.permits(101, reached_s=30)
    assert not licence.permits(101, reached_s=29)


def test_a_lock_that_was_not_kept_may_be_anothers() -> None:
    licence = Licence(lease_s=30, lock_s=5)
    licence.renew(100, served_s=500)
    assert licence.is_held(104.9)
    assert not licence.is_held(105)
    assert not licence.permits(105, reached_s=500)
    licence.renew(106, served_s=500)
    licence.withdraw()
    assert not licence.is_held(106)


HUB = "redis://hub"
MINE = WatchedQueue(HUB, "t:input")


def task(name: str = "t", **details: object) -> TaskSpec:
    return TaskSpec.model_validate({"name": name, "image": "i"} | details)


def test_the_running_tasks_queue_is_watched_whatever_is_found_there() -> None:
    watched = WatchedQueues(HUB)
    watched.run(task())
    for has_nodes in (False, True, False):
        watched.saw(MINE, has_nodes=has_nodes)
        watched.swept(MINE)
        watched.drop_done(HUB)
        assert watched.at(HUB) == [MINE]


def test_a_task_that_has_ended_is_watched_until_no_node_is_left_and_none_was_handed_anything() -> (
    None
):
    watched = WatchedQueues(HUB)
    watched.run(task())
    watched.saw(MINE, has_nodes=True)
    watched.run(None)
    watched.swept(MINE)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE], "a node is left"
    watched.saw(MINE, has_nodes=False)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE], "nobody has looked for inboxes since"
    watched.swept(MINE)
    watched.drop_done(HUB)
    assert watched.at(HUB) == []


def test_what_is_found_empty_at_a_start_is_not_looked_at_again() -> None:
    watched = WatchedQueues(HUB)
    watched.suspect([task(), task("u")], to_be_swept=True)
    for queue in watched.at(HUB):
        watched.saw(queue, has_nodes=queue == MINE)
        watched.swept(queue)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE]


def test_a_queue_under_suspicion_is_looked_at_once_and_a_node_there_makes_it_stay() -> None:
    watched = WatchedQueues(HUB)
    watched.suspect([task()], to_be_swept=False)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE], "nobody has looked"
    watched.saw(MINE, has_nodes=False)
    watched.drop_done(HUB)
    assert watched.at(HUB) == []

    watched.suspect([task()], to_be_swept=False)
    watched.saw(MINE, has_nodes=True)
    watched.saw(MINE, has_nodes=False)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE], "nobody has looked for inboxes since"


def test_suspicion_does_not_forget_what_is_known() -> None:
    watched = WatchedQueues(HUB)
    watched.run(task())
    watched.suspect([task()], to_be_swept=False)
    watched.saw(MINE, has_nodes=False)
    watched.drop_done(HUB)
    assert watched.at(HUB) == [MINE]


def test_only_leased_tasks_are_watched_each_at_its_own_redis() -> None:
    watched = WatchedQueues(HUB)
    elsewhere = "redis://:pw@elsewhere:1/0"
    watched.suspect(
        [
            task("direct", delivery="direct"),
            task("one", input_redis=elsewhere),
            task("two", input_redis=elsewhere, input_queue="q"),
            task("three", input_queue="q", output_redis=elsewhere),
        ],
        to_be_swept=True,
    )
    assert watched.redis_urls() == {HUB, elsewhere}
    assert watched.at(elsewhere) == [
        WatchedQueue(elsewhere, "one:input"),
        WatchedQueue(elsewhere, "q"),
    ]
    assert watched.at(HUB) == [WatchedQueue(HUB, "q")]
