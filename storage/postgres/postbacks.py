"""Partners' postbacks as people ask for them: what was sent and answered, and what is to be told once more."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.outbox import OutboxRow

Row = dict[str, Any]
Heard = tuple[UUID, str, str]
"""Conversion, status, address."""

# Without the address: an operator may have written a secret into it, and what was sent is in the log, as it may be shown.
_OUTBOX = (
    "outbox_id, conversion_id, event, status, aff_id, offer_id, goal_id, payout, currency, method, host, actor,"
    " created_at, next_attempt_at, attempts, leased_by, state, finished_at"
)


class Told(NamedTuple):
    """A conversion's present state, to be told once more."""

    conversion_id: UUID
    status: str
    aff_id: int
    offer_id: int
    goal_id: int
    amount: Any
    payout: Any
    revenue: Any
    currency: str


async def find_postbacks(conn: asyncpg.Connection, conversion_ids: Sequence[UUID]) -> list[Row]:
    """What partners were told of these conversions, oldest first; `log` holds the attempts."""
    rows = await _fetch(
        conn, f"SELECT {_OUTBOX} FROM postback_outbox WHERE conversion_id = ANY($1) ORDER BY outbox_id", conversion_ids
    )
    attempts = await _fetch(
        conn,
        "SELECT outbox_id, attempt, attempted_at, method, url, status_code, duration_ms, error, answer"
        " FROM postback_log WHERE conversion_id = ANY($1) ORDER BY outbox_id, attempt",
        conversion_ids,
    )
    return [{**row, "log": [one for one in attempts if one["outbox_id"] == row["outbox_id"]]} for row in rows]


async def list_postbacks(
    conn: asyncpg.Connection, *, only_failed: bool, limit: int, aff_id: int = 0, before: int | None = None
) -> list[Row]:
    """The newest rows of the outbox with the last attempt of each; `only_failed`: given up, or failing now.

    `aff_id`: that partner's alone; `before`: those older than this outbox_id.
    """
    return await _fetch(
        conn,
        f"SELECT {_OUTBOX}, url, attempted_at, status_code, duration_ms, error, url_sent"
        " FROM postback_outbox AS outbox LEFT JOIN LATERAL ("
        "  SELECT attempted_at, status_code, duration_ms, error, url AS url_sent FROM postback_log"
        "  WHERE postback_log.outbox_id = outbox.outbox_id ORDER BY attempt DESC LIMIT 1"
        " ) AS last ON true"
        " WHERE (NOT $1 OR state = 'dead'"
        "  OR (state = 'pending' AND attempts > CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END))"
        " AND ($3 = 0 OR aff_id = $3) AND ($4::bigint IS NULL OR outbox_id < $4)"
        " ORDER BY outbox_id DESC LIMIT $2",
        only_failed,
        limit,
        aff_id,
        before,
    )


async def find_ids(
    conn: asyncpg.Connection, *, ids: Sequence[UUID], are_dead: bool, since: datetime | None
) -> list[UUID]:
    """The conversions of `ids`, those with a row that was given up, and those received since then, in order."""
    rows = await conn.fetch(
        "SELECT conversion_id FROM conversions WHERE conversion_id = ANY($1)"
        " UNION SELECT conversion_id FROM postback_outbox WHERE $2 AND state = 'dead'"
        " UNION SELECT conversion_id FROM conversions WHERE received_at >= $3 ORDER BY 1",
        ids,
        are_dead,
        since,
    )
    return [row["conversion_id"] for row in rows]


async def lock_told(conn: asyncpg.Connection, ids: Sequence[UUID]) -> list[Told]:
    """The present state of these conversions, which nobody changes until the commit."""
    rows = await conn.fetch(
        f"SELECT {', '.join(Told._fields)} FROM conversions WHERE conversion_id = ANY($1)"
        " ORDER BY conversion_id FOR UPDATE",
        ids,
    )
    return [Told(*row) for row in rows]


def heard_as(row: OutboxRow) -> Heard:
    """What `find_heard` calls the delivery of that row."""
    return row.conversion_id, row.status, row.url


async def find_heard(conn: asyncpg.Connection, ids: Sequence[UUID]) -> set[Heard]:
    """Which states of these conversions were delivered to which addresses."""
    rows = await conn.fetch(
        "SELECT conversion_id, status, url FROM postback_outbox WHERE conversion_id = ANY($1) AND state = 'delivered'",
        ids,
    )
    return {(row["conversion_id"], row["status"], row["url"]) for row in rows}


async def close_unfinished(conn: asyncpg.Connection, conversion_ids: Sequence[UUID]) -> None:
    """What is still to be sent, or was given up, of these conversions: a replay takes its place."""
    await conn.execute(
        "UPDATE postback_outbox SET state = 'replayed', finished_at = now(), leased_by = NULL"
        " WHERE outbox_id IN (SELECT outbox_id FROM postback_outbox"
        "  WHERE conversion_id = ANY($1) AND state IN ('pending', 'dead') ORDER BY outbox_id FOR UPDATE)",
        conversion_ids,
    )


async def _fetch(conn: asyncpg.Connection, query: str, *arguments: Any) -> list[Row]:
    return [dict(row) for row in await conn.fetch(query, *arguments)]
