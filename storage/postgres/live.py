"""What is new since the last look: clicks by how far each journal is stored, decisions and changes by their number.

L1  A journal's watermark is committed with its clicks: what it passes between two looks is new, and is seen once.
L2  `change_id`s become visible in another order than they are given: whoever follows them must come back for gaps.
"""

from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection

Row = dict[str, Any]

_CLICK = (
    "click_id, clicked_at, node_id, offer_id, aff_id, landing_page_id, creative_id, source, aff_sub1, aff_sub2, aff_sub3,"
    " aff_sub4, aff_sub5, country, device_type, os, browser, cost, payout, revenue, currency, outcome, reason, flags,"
    " catalog_revision"
)
_CONVERSION = (
    "conversion_id, click_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, touched_at,"
    " received_at, amount, currency, revenue, payout, status, conversions.reason, status_code, promo_code, via, country,"
    " device_type"
)


class Mark(NamedTuple):
    """Through which millisecond the journal of a worker is stored."""

    node_id: int
    worker_id: int
    watermark_ms: int


async def read_marks(conn: Connection) -> dict[UUID, Mark]:
    """Of all journals that somebody writes, or that were drained in the last minute."""
    rows = await conn.fetch(
        "SELECT journal_id, node_id, worker_id, watermark_ms FROM journal_positions"
        " WHERE finished_at IS NULL OR updated_at > now() - interval '1 minute'"
    )
    return {row[0]: Mark(*tuple(row)[1:]) for row in rows}


async def newest_clicks(conn: Connection, after_ms: int, through_ms: int, limit: int) -> list[Row]:
    """The newest clicks of those milliseconds, the oldest of them first."""
    rows = await conn.fetch(
        f"SELECT {_CLICK} FROM clicks WHERE click_id >= $1 AND click_id < $2 ORDER BY click_id DESC LIMIT $3",
        _first_id(after_ms + 1),
        _first_id(through_ms + 1),
        limit,
    )
    return [dict(row) for row in reversed(rows)]


async def changes_after(conn: Connection, change_id: int, limit: int) -> list[Row]:
    """Decisions and changes of a higher number, in order: the conversion as it is now, and what happened to it."""
    rows = await conn.fetch(
        f"SELECT change_id, changed_at, kind, {_CONVERSION} FROM conversion_changes AS change"
        " JOIN conversions USING (conversion_id) WHERE change_id > $1 ORDER BY change_id LIMIT $2",
        change_id,
        limit,
    )
    return [dict(row) for row in rows]


async def recent_changes(conn: Connection, look_back: int) -> tuple[int, list[int]]:
    """The highest number by now less `look_back`, and the numbers above that."""
    rows = await conn.fetch(
        "SELECT change_id FROM conversion_changes"
        " WHERE change_id > (SELECT max(change_id) FROM conversion_changes) - $1 ORDER BY change_id",
        look_back,
    )
    seen = [row[0] for row in rows]
    return (max(0, seen[-1] - look_back) if seen else 0), seen


def _first_id(ms: int) -> UUID:
    return UUID(int=max(0, ms) << 80)
