"""What a postback's macros stand for: its conversion, and the click or impression that the conversion is credited to."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.partitions import day_of_id, id_range

Row = dict[str, Any]


class PostbackFacts(NamedTuple):
    """Rows as they are; `click` None: the conversion has none, or its partition is gone."""

    conversion: Row
    click: Row | None


async def find_facts(conn: asyncpg.Connection, conversion_ids: Sequence[UUID]) -> dict[UUID, PostbackFacts]:
    """By conversion id; one that is not stored is left out."""
    rows = await conn.fetch("SELECT * FROM conversions WHERE conversion_id = ANY($1)", list(set(conversion_ids)))
    clicks: dict[UUID, Row] = {}
    wanted = {row["click_id"] for row in rows if row["click_id"]}
    for table in ("clicks", "impressions"):
        clicks.update(await _find_touches(conn, table, wanted - clicks.keys()))
    return {row["conversion_id"]: PostbackFacts(dict(row), clicks.get(row["click_id"])) for row in rows}


async def _find_touches(conn: asyncpg.Connection, table: str, click_ids: Iterable[UUID]) -> dict[UUID, Row]:
    by_day = defaultdict(list)
    for click_id in click_ids:
        by_day[day_of_id(click_id.bytes)].append(click_id)
    found = {}
    for day, ids in by_day.items():
        low, high = id_range(day)  # lets the planner look into one partition instead of into each
        rows = await conn.fetch(
            f"SELECT * FROM {table} WHERE click_id = ANY($1) AND click_id >= $2 AND click_id < $3", ids, low, high
        )
        found.update({row["click_id"]: dict(row) for row in rows})
    return found
