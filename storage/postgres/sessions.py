"""Sessions that no memory holds any more, read back from `clicks` in one look-up per day of their ids."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.partitions import day_of_id, id_range


class StoredSession(NamedTuple):
    """A click as attribution needs it."""

    click_id: bytes
    revision: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int
    contact_id: str
    country: str
    device_type: str


async def has_external_ids(conn: asyncpg.Connection) -> bool:
    """Whether clicks of another tracker were brought over."""
    found: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM external_ids)")
    return found


async def find_sessions(conn: asyncpg.Connection, click_ids: Iterable[bytes]) -> dict[bytes, StoredSession]:
    """Those of `click_ids` that are stored, by id."""
    by_day = defaultdict(list)
    for click_id in click_ids:
        by_day[day_of_id(click_id)].append(UUID(bytes=click_id))
    found = {}
    for day, ids in by_day.items():
        low, high = id_range(day)
        # The range lets the planner look into one partition instead of into each.
        rows = await conn.fetch(
            "SELECT click_id, catalog_revision, offer_id, aff_id, landing_page_id, creative_id, contact_id,"
            " country, device_type FROM clicks WHERE click_id = ANY($1) AND click_id >= $2 AND click_id < $3",
            ids,
            low,
            high,
        )
        for row in rows:
            found[row["click_id"].bytes] = StoredSession(row["click_id"].bytes, *tuple(row)[1:])
    return found
