"""Partners' postbacks page by page: the outbox with the last attempt of each, newest first; and one with all of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection

Row = dict[str, Any]

_COLUMNS = (
    "outbox_id, conversion_id, event, status, aff_id, offer_id, goal_id, amount, payout, revenue, currency, method, url, host,"
    " actor, created_at, next_attempt_at, attempts, leased_by, state, finished_at"
)
_LAST = "attempted_at, status_code, duration_ms, error, url AS url_sent"


class PostbackFilter(NamedTuple):
    """Empty or None: all. `is_failing`: given up, or tried in vain and still pending."""

    states: Sequence[str] = ()
    aff_ids: Sequence[int] = ()
    offer_ids: Sequence[int] = ()
    conversion_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_failing: bool = False


async def list_page(conn: Connection, wanted: PostbackFilter, limit: int, before_id: int | None = None) -> list[Row]:
    """At most `limit` of them below that id, with `attempted_at`, `status_code` and so on of the last attempt."""
    return await _fetch(
        conn,
        f"SELECT {_COLUMNS}, attempted_at, status_code, duration_ms, error, url_sent FROM postback_outbox AS outbox LEFT JOIN LATERAL ("
        f"  SELECT {_LAST} FROM postback_log WHERE postback_log.outbox_id = outbox.outbox_id ORDER BY attempt DESC LIMIT 1"
        " ) AS last ON true"
        " WHERE ($1::text[] = '{}' OR state = ANY($1)) AND ($2::int[] = '{}' OR aff_id = ANY($2))"
        " AND ($3::int[] = '{}' OR offer_id = ANY($3)) AND ($4::uuid IS NULL OR conversion_id = $4)"
        " AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at < $6)"
        " AND (NOT $7 OR state = 'dead'"
        "      OR (state = 'pending' AND attempts > CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END))"
        " AND ($8::bigint IS NULL OR outbox_id < $8) ORDER BY outbox_id DESC LIMIT $9",
        *wanted,
        before_id,
        limit,
    )


async def find_one(conn: Connection, outbox_id: int) -> Row | None:
    """That row, with its attempts as `log`; None: there is none."""
    rows = await _fetch(conn, f"SELECT {_COLUMNS} FROM postback_outbox WHERE outbox_id = $1", outbox_id)
    if not rows:
        return None
    log = await _fetch(
        conn,
        "SELECT attempt, attempted_at, method, url, status_code, duration_ms, error, answer FROM postback_log"
        " WHERE outbox_id = $1 ORDER BY attempt",
        outbox_id,
    )
    return {**rows[0], "log": log}


async def _fetch(conn: Connection, query: str, *arguments: Any) -> list[Row]:
    return [dict(row) for row in await conn.fetch(query, *arguments)]
