"""What single partners get for the base conversion must not spread to goals: there it is the goal's own money that counts.

Here a partner's override without `goal_id` beats the goals' terms too, so what it would hide is said again for each goal.
"""

from typing import Any

_DEFAULTS = {
    "payout_type": "cpa_flat",
    "payout": "0",
    "payout_percent": "0",
    "revenue_type": "cpa_flat",
    "revenue": "0",
    "revenue_percent": "0",
}
Row = dict[str, Any]


def keep_goal_terms(offer: Row, aff_ids: set[int]) -> bool:
    """Complete the overrides of an offer of the file for these partners; whether anything had to be said again."""
    rows: list[Row] = offer.get("overrides", [])
    said: list[Row] = []
    for base in [row for row in rows if "goal_id" not in row and row["aff_id"] in aff_ids]:
        for goal in offer.get("goals", []):
            place = {"aff_id": base["aff_id"], "goal_id": goal["id"]}
            own = next((row for row in rows if row.items() >= place.items()), None)
            hidden = {
                field: goal.get(field, offer.get(field, default))
                for field, default in _DEFAULTS.items()
                if field in base and field not in (own or {})
            }
            if hidden and own is not None:
                own.update(hidden)
            if hidden:
                said.append(own or {**place, **hidden})
    rows.extend(row for row in said if row not in rows)
    rows.sort(key=lambda row: (row["aff_id"], row.get("goal_id", 0)))
    return bool(said)
