"""What a node wrote of a dead letter, and how many of them one call handles."""

from computehub.dead_letters import AT_ONCE, QUICK_S, SLOW_S, paced, read_report
from gridcore.wire import DeadLetterReport


def test_a_report_is_read_as_far_as_it_can_be() -> None:
    assert read_report({}) == DeadLetterReport()
    assert read_report({"reason": "exit", "of tomorrow": 1}) == DeadLetterReport(reason="exit")
    strange = {"reason": "exit", "slot": "three", "log_lines": [1, 2], "exit_code": 3}
    assert read_report(strange) == DeadLetterReport(reason="exit", exit_code=3)


def test_a_lone_surrogate_in_a_programs_last_words_is_replaced() -> None:
    assert read_report({"log_lines": ["a\ud800b"]}).log_lines == ["a?b"]


def test_calls_grow_while_they_are_quick_and_shrink_when_letters_are_large() -> None:
    count = 10
    for _ in range(20):
        count = paced(count, QUICK_S / 2)
    assert count == AT_ONCE
    assert paced(count, (QUICK_S + SLOW_S) / 2) == count
    for _ in range(20):
        count = paced(count, SLOW_S * 2)
    assert count == 1
