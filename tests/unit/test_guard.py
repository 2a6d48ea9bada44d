"""When the guard of the hot path's cost says no."""

import pytest

from benchmarks.guard import Cost, cost_faults

RECORDED = {"same": {"instructions": 0.5, "cpu_time": 0.5}}


def make_cost(measure: str, ratio: float, requests: str = "same") -> Cost:
    return Cost(requests, measure, ratio, 1.0, ratio, [ratio])


@pytest.mark.parametrize(
    ("measure", "ratio", "is_refused"),
    [
        ("instructions", 0.549, False),
        ("instructions", 0.551, True),
        ("cpu_time", 0.624, False),
        ("cpu_time", 0.626, True),
        ("cpu_time", 0.1, False),
    ],
)
def test_a_tenth_more_instructions_or_a_quarter_more_cpu_time_is_refused(
    measure: str, ratio: float, is_refused: bool
) -> None:
    """Against a recorded ratio of a half."""
    faults = cost_faults([make_cost(measure, ratio)], RECORDED)
    assert bool(faults) is is_refused


def test_instructions_are_compared_before_cpu_time() -> None:
    """Where both are known CPU time decides nothing."""
    costs = [make_cost("instructions", 0.5), make_cost("cpu_time", 9.0)]
    assert cost_faults(costs, RECORDED) == []


def test_cpu_time_is_compared_where_no_instructions_were_recorded() -> None:
    """The record may come from a machine that cannot count them."""
    costs = [make_cost("instructions", 9.0), make_cost("cpu_time", 0.5)]
    assert cost_faults(costs, {"same": {"cpu_time": 0.5}}) == []


def test_a_missing_record_is_a_fault() -> None:
    """A guard that compares with nothing must not pass."""
    [fault] = cost_faults([make_cost("cpu_time", 0.5)], {})
    assert "--record" in fault


def test_each_kind_of_requests_is_judged_by_its_own_record() -> None:
    """A cache makes the same request cheap; it hides nothing about the others."""
    costs = [make_cost("cpu_time", 0.5), make_cost("cpu_time", 0.9, "varied")]
    [fault] = cost_faults(costs, {**RECORDED, "varied": {"cpu_time": 0.6}})
    assert "varied" in fault
