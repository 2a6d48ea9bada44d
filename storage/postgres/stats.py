"""Roll-ups: what a batch adds to `stats_hourly`, summed in memory and upserted in key order, last in its transaction.

Unsorted upserts by several drains deadlock within seconds; sorted ones do not.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import asyncpg

from storage.postgres.rollups import add_late, hold_hours
from storage.postgres.stats_columns import COUNTS, MEASURES, SUMS, StatsKey, array_of, unnested

__all__ = ["COUNTS", "SUMS", "Deltas", "StatsKey", "upsert"]

_PLACES = {name: place for place, name in enumerate(MEASURES)}
_GROSS, _UNIQUE, _INVALID = (_PLACES[name] for name in ("gross_clicks", "unique_clicks", "invalid_clicks"))
_NOTHING = [0] * len(MEASURES)


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
    """Add the deltas to the roll-ups, once in a transaction. A measure that no row changes is left out."""
    columns = dict(zip(StatsKey._fields + MEASURES, zip(*deltas.sorted_rows(), strict=True), strict=False))
    measures = tuple(name for name in MEASURES if any(columns.get(name, ())))
    if not measures:
        return
    rolled_up = await hold_hours(conn, set(columns["hour"]))
    names = StatsKey._fields + measures
    await conn.execute(_upsert_sql(measures), *(array_of(name, columns[name]) for name in names))
    if rolled_up and columns["hour"][0] < rolled_up.through:  # the first is the earliest
        late = [row for row in deltas.sorted_rows() if row[0] < rolled_up.through]
        await add_late(conn, rolled_up, dict(zip(StatsKey._fields + MEASURES, zip(*late, strict=True), strict=True)))


@lru_cache
def _upsert_sql(measures: tuple[str, ...]) -> str:
    names = StatsKey._fields + measures
    return (
        f"INSERT INTO stats_hourly ({', '.join(names)}) SELECT * FROM {unnested(names)}"
        f" ON CONFLICT ({', '.join(StatsKey._fields)}) DO UPDATE SET "
        + ", ".join(f"{name} = stats_hourly.{name} + excluded.{name}" for name in measures)
    )
