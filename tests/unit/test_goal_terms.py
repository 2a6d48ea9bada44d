"""A partner's own money for the base conversion, imported: the goals go on paying what they paid."""

from copy import deepcopy
from typing import Any

from edge.imports.goal_terms import keep_goal_terms

GOALS = [{"id": 3, "payout": "1.00", "payout_type": "cpa_flat"}, {"id": 4}]


def offer(*overrides: dict[str, Any]) -> dict[str, Any]:
    """An offer of a catalog file."""
    return {"id": 17, "payout": "5.00", "goals": deepcopy(GOALS), "overrides": list(overrides)}


def test_what_a_base_override_would_hide_is_said_again_for_each_goal() -> None:
    """The goal's own payout, and for a goal without one the offer's; only of the fields that the override has."""
    row = offer({"aff_id": 2, "payout": "6.00"})
    assert keep_goal_terms(row, {2})
    assert row["overrides"] == [
        {"aff_id": 2, "payout": "6.00"},
        {"aff_id": 2, "goal_id": 3, "payout": "1.00"},
        {"aff_id": 2, "goal_id": 4, "payout": "5.00"},
    ]


def test_what_the_partner_has_for_a_goal_stays() -> None:
    """It is completed by what the base override would change, and done a second time nothing changes."""
    row = offer({"aff_id": 2, "payout": "6.00", "revenue": "8.00"}, {"aff_id": 2, "goal_id": 3, "payout": "1.20"})
    assert keep_goal_terms(row, {2})
    assert row["overrides"][1] == {"aff_id": 2, "goal_id": 3, "payout": "1.20", "revenue": "0"}
    before = deepcopy(row)
    assert not keep_goal_terms(row, {2})
    assert row == before


def test_caps_unknown_partners_and_offers_without_goals_are_left_alone() -> None:
    """Nothing is said again where nothing would be hidden, nor for partners that the file does not have."""
    for row in (
        offer({"aff_id": 2, "caps": {"daily_clicks": 1}}),
        offer({"aff_id": 44, "payout": "6.00"}),
        {"id": 1, "overrides": [{"aff_id": 2, "payout": "6.00"}]},
        {"id": 1},
    ):
        before = deepcopy(row)
        assert not keep_goal_terms(row, {2})
        assert row == before
