"""The columns of `stats_hourly`, which `stats_rollups` shares."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple


class StatsKey(NamedTuple):
    """A row's key; 0 and "" for none."""

    hour: datetime
    node_id: int
    advertiser_id: int
    offer_id: int
    aff_id: int
    goal_id: int
    landing_page_id: int
    creative_id: int
    country: str
    device_type: str
    currency: str


COUNTS = (
    "impressions",
    "gross_clicks",
    "unique_clicks",
    "invalid_clicks",
    "refused_clicks",
    "conversions",
    "pending",
    "rejected",
    "reversed",
)
SUMS = ("amount", "payout", "revenue", "cost")
MEASURES = COUNTS + SUMS
TYPES = dict(zip(StatsKey._fields, ("timestamptz", *["int"] * 7, *["text"] * 3), strict=True))
TYPES |= dict.fromkeys(COUNTS, "bigint") | dict.fromkeys(SUMS, "numeric")


def array_of(name: str, values: Sequence[Any]) -> Sequence[Any] | str:
    """Money as PostgreSQL's text form of an array: 0.2 us an element, asyncpg's binary form takes 1.2 (2 shared Xeon
    cores, 2026-11-21).
    """
    return "{" + ",".join(map(str, values)) + "}" if name in SUMS else values


def unnested(names: Sequence[str]) -> str:
    """The call of `unnest` whose parameters are arrays of these columns, from $1 on."""
    arrays = (f"${place}{'::text' * (name in SUMS)}::{TYPES[name]}[]" for place, name in enumerate(names, 1))
    return f"unnest({', '.join(arrays)})"
