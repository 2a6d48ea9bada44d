"""Do the coarser sums equal `stats_hourly`? Added up here again in Python, by what the state's row says of itself."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

_TEXTS = ("country", "device_type", "currency")
_DIMENSIONS = (
    "advertiser_id", "offer_id", "aff_id", "goal_id", "landing_page_id", "creative_id", "country", "device_type", "currency",
)  # fmt: skip
_MEASURES = (
    "impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "conversions", "pending", "rejected",
    "reversed", "amount", "payout", "revenue", "cost",
)  # fmt: skip
Sums = dict[tuple[Any, ...], Counter[str]]


async def rollup_differences(conn: Any) -> list[str]:
    """A line for each row of stats_rollups that is not what its hours add up to; in a transaction of one snapshot."""
    state = await conn.fetchrow("SELECT through, timezone, layout FROM stats_rollup_state")
    if state is None:
        return []
    expected: Sums = defaultdict(Counter)
    for row in await conn.fetch("SELECT * FROM stats_hourly WHERE hour < $1", state["through"]):
        for said in state["layout"].split("; "):
            number, unit, *kept = said.split()
            bucket = row["hour"] if unit == "hour" else _day_of(row["hour"], ZoneInfo(state["timezone"]))
            key = (int(number), bucket, *(_kept(row, name, kept) for name in _DIMENSIONS))
            expected[key].update({name: row[name] for name in _MEASURES})
    found: Sums = defaultdict(Counter)
    for row in await conn.fetch("SELECT * FROM stats_rollups"):
        key = (row["grain"], row["hour"], *(row[name] for name in _DIMENSIONS))
        found[key].update({name: row[name] for name in _MEASURES})
    return [
        f"{name} is {found[key][name]} in stats_rollups and {expected[key][name]} in stats_hourly: {key}"
        for key in sorted(expected.keys() | found.keys())
        for name in _MEASURES
        if expected[key][name] != found[key][name]
    ]


def _kept(row: Any, name: str, kept: list[str]) -> Any:
    return row[name] if name in kept or name == "currency" else "" if name in _TEXTS else 0


def _day_of(hour: datetime, zone: ZoneInfo) -> datetime:
    return datetime.combine(hour.astimezone(zone).date(), time(), zone).astimezone(UTC)
