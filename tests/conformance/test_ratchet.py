"""What the ratchet says."""

from tests.conformance.ratchet import judge


def test_known_failures_and_passes_are_fine() -> None:
    assert judge({"a": True, "b": False}, {"b": "a reason"}) == []


def test_what_is_not_as_it_was_is_wrong() -> None:
    wrong = judge({"a": False, "b": True}, {"b": "a reason", "c": "a reason"})
    assert [line.split(" ")[0] for line in wrong] == ["a", "b", "c"]
    assert "new" in wrong[0]
    assert "take it off" in wrong[1]
    assert "did not run" in wrong[2]
