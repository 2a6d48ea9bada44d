"""Roll-ups: what a batch adds to `stats_hourly`, summed in memory and upserted in key order, last in its transaction.

Unsorted upserts by several drains deadlock within seconds; sorted ones do not.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
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


COUNTS = (
    "impressions",
    "gross_clicks",
    "unique_clicks",
    "invalid_clicks",
    "refused_clicks",
    "conversions",
    "pending",
    "rejected",
)
SUMS = ("amount", "payout", "revenue", "cost")
_MEASURES = COUNTS + SUMS
_PLACES = {name: place for place, name in enumerate(_MEASURES)}
_GROSS, _UNIQUE, _INVALID = (_PLACES[name] for name in ("gross_clicks", "unique_clicks", "invalid_clicks"))
_NOTHING = [0] * len(_MEASURES)
_TYPES = dict(zip(StatsKey._fields, ("timestamptz", *["int"] * 7, *["text"] * 3), strict=True))
_TYPES |= dict.fromkeys(COUNTS, "bigint") | dict.fromkeys(SUMS, "numeric")


class Deltas:
    """What one batch adds. `add(key, gross_clicks=1, payout=…)`."""

    def __init__(self) -> None:
        self.rows: dict[StatsKey, list[Any]] = {}

    def add(self, key: StatsKey, **measures: int | Decimal) -> None:
        row = self._row(key)
        for name, value in measures.items():
            row[_PLACES[name]] += value

    def add_click(self, key: StatsKey, *, is_valid: bool, is_unique: bool) -> None:
        """A click counts once as gross, and as unique or invalid or (a duplicate) as neither."""
        row = self._row(key)
        row[_GROSS] += 1
        row[_UNIQUE] += is_unique
        row[_INVALID] += not is_valid

    def measures(self, key: StatsKey, names: Sequence[str]) -> list[Any]:
        """What is added to a key that is there."""
        row = self.rows[key]
        return [row[_PLACES[name]] for name in names]

    def clear(self, *names: str) -> None:
        """Leave these measures out."""
        for row in self.rows.values():
            for name in names:
                row[_PLACES[name]] = 0

    def merge(self, other: "Deltas") -> None:
        for key, measures in other.rows.items():
            row = self._row(key)
            for place, value in enumerate(measures):
                row[place] += value

    def sorted_rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows in key order, all columns."""
        return ((*key, *self.rows[key]) for key in sorted(self.rows))

    def _row(self, key: StatsKey) -> list[Any]:
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = _NOTHING.copy()
        return row


async def upsert(conn: asyncpg.Connection, deltas: Deltas) -> None:
    """Add the deltas to the roll-ups. A measure that no row changes is left out."""
    columns = dict(zip(StatsKey._fields + _MEASURES, zip(*deltas.sorted_rows(), strict=True), strict=False))
    measures = tuple(name for name in _MEASURES if any(columns.get(name, ())))
    if measures:
        names = StatsKey._fields + measures
        await conn.execute(_upsert_sql(measures), *(_array(name, columns[name]) for name in names))


@lru_cache
def _upsert_sql(measures: tuple[str, ...]) -> str:
    names = StatsKey._fields + measures
    arrays = (f"${i}{'::text' * (name in SUMS)}::{_TYPES[name]}[]" for i, name in enumerate(names, 1))
    return (
        f"INSERT INTO stats_hourly ({', '.join(names)})"
        f" SELECT * FROM unnest({', '.join(arrays)})"
        f" ON CONFLICT ({', '.join(StatsKey._fields)}) DO UPDATE SET "
        + ", ".join(f"{name} = stats_hourly.{name} + excluded.{name}" for name in measures)
    )


def _array(name: str, values: Sequence[Any]) -> Sequence[Any] | str:
    """Money as PostgreSQL's text form of an array: 0.2 us an element, asyncpg's binary form takes 1.2 (2 shared Xeon
    cores, 2026-11-21).
    """
    return "{" + ",".join(map(str, values)) + "}" if name in SUMS else values
