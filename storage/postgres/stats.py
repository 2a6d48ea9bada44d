"""Roll-ups: what a batch adds to `stats_hourly`, summed in memory and upserted in key order, last in its transaction.

Unsorted upserts by several drains deadlock within seconds; sorted ones do not.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg


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


COUNTS = ("impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "conversions", "pending", "rejected")
SUMS = ("amount", "payout", "revenue", "cost")
_MEASURES = COUNTS + SUMS
_KEY_TYPES = ("timestamptz", *["int"] * 7, *["text"] * 3)
_TYPES = (*_KEY_TYPES, *["bigint"] * len(COUNTS), *["numeric"] * len(SUMS))
_UPSERT = (
    f"INSERT INTO stats_hourly ({', '.join(StatsKey._fields + _MEASURES)})"
    f" SELECT * FROM unnest({', '.join(f'${i}::{t}[]' for i, t in enumerate(_TYPES, 1))})"
    f" ON CONFLICT ({', '.join(StatsKey._fields)}) DO UPDATE SET "
    + ", ".join(f"{name} = stats_hourly.{name} + excluded.{name}" for name in _MEASURES)
)


class Deltas:
    """What one batch adds. `add(key, gross_clicks=1, payout=…)`."""

    def __init__(self) -> None:
        self.rows: dict[StatsKey, dict[str, Any]] = {}

    def add(self, key: StatsKey, **measures: int | Decimal) -> None:
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = {}
        for name, value in measures.items():
            row[name] = row.get(name, 0) + value

    def add_click(self, key: StatsKey, *, is_valid: bool, is_unique: bool) -> None:
        """A click counts once as gross, and as unique or invalid or (a duplicate) as neither."""
        self.add(key, gross_clicks=1, unique_clicks=int(is_unique), invalid_clicks=int(not is_valid))

    def merge(self, other: "Deltas") -> None:
        for key, measures in other.rows.items():
            self.add(key, **measures)

    def sorted_rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows in key order, all columns."""
        for key in sorted(self.rows):
            row = self.rows[key]
            yield (*key, *(row.get(name, 0) for name in _MEASURES))


async def upsert(conn: asyncpg.Connection, deltas: Deltas) -> None:
    """Add the deltas to the roll-ups."""
    rows = list(deltas.sorted_rows())
    if rows:
        await conn.execute(_UPSERT, *map(list, zip(*rows, strict=True)))
