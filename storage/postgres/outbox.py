"""The outbox of partners' postbacks: queued with the conversion, leased to one sender at a time, finished once.

O1  A row is queued in the transaction that stores or changes its conversion: both or neither.
O2  A row in state `pending` is due at `next_attempt_at`. A sender that takes it moves that moment ahead and counts the
    attempt: a row whose sender died comes back by itself.
O3  An attempt's line in `postback_log` and the row's new state are one transaction. A row that is `delivered` stays it.
O4  A failure is believed only of the attempt counted last; a 2xx always.
O5  Of one conversion a host hears in order: a row that is due while one of an earlier event is pending for that host is put
    off until a second after that one is due. Rows are numbered in the order of their events.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.copy import Uuid

Outcome = Literal["delivered", "failed", "dead"]


class OutboxRow(NamedTuple):
    """What a partner is to be told, as it is queued; the fields are columns of `postback_outbox`."""

    conversion_id: Uuid
    event: str
    status: str
    target: int
    aff_id: int
    offer_id: int
    goal_id: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    currency: str
    method: str
    url: str
    host: str
    catalog_revision: int
    actor: str = ""


class Due(NamedTuple):
    """A row taken to be sent. `attempts` counts this attempt too."""

    outbox_id: int
    conversion_id: UUID
    event: str
    status: str
    aff_id: int
    offer_id: int
    goal_id: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    currency: str
    method: str
    url: str
    host: str
    created_at: datetime
    attempts: int


class Attempt(NamedTuple):
    """How one attempt ended. `status_code` 0: without an answer. `retry_in_s`: for `failed`."""

    outbox_id: int
    conversion_id: UUID
    attempt: int
    attempted_at: datetime
    method: str
    url: str
    status_code: int
    duration_ms: int
    error: str
    answer: str
    outcome: Outcome
    retry_in_s: float


class Backlog(NamedTuple):
    """What waits to be sent, and for how many seconds the oldest has waited."""

    pending: int
    oldest_s: float


_TYPES = {
    "conversion_id": "uuid",
    **dict.fromkeys(("target", "aff_id", "offer_id", "goal_id"), "int"),
    **dict.fromkeys(("amount", "payout", "revenue"), "numeric"),
    "catalog_revision": "bigint",
}
_QUEUE = (
    f"INSERT INTO postback_outbox ({', '.join(OutboxRow._fields)}) SELECT * FROM unnest("
    + ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(OutboxRow._fields, 1))
    + ") ON CONFLICT DO NOTHING"
)
# Hosts first, by skipping through the index, so that one with a million rows due costs no more than one with ten, and
# from each no more than it has room for: a host that hangs keeps nobody else's rows from being found. (OFFSET 0: of
# earlier events the few of the conversion are looked at, never the many of the host.)
_TAKE = f"""
    WITH RECURSIVE hosts AS (
        (SELECT host FROM postback_outbox WHERE state = 'pending' ORDER BY host LIMIT 1)
        UNION ALL
        SELECT (SELECT host FROM postback_outbox WHERE state = 'pending' AND host > hosts.host ORDER BY host LIMIT 1)
        FROM hosts WHERE host IS NOT NULL
    ), room AS (
        SELECT hosts.host, greatest(0, $1 - coalesce(busy.count, 0)) AS free
        FROM hosts LEFT JOIN unnest($2::text[], $3::int[]) AS busy (host, count) USING (host)
        WHERE hosts.host IS NOT NULL
    ), picked AS (
        SELECT picked.* FROM room CROSS JOIN LATERAL (
            SELECT outbox_id, conversion_id, event, host, next_attempt_at FROM postback_outbox
            WHERE state = 'pending' AND host = room.host AND next_attempt_at <= now()
            ORDER BY next_attempt_at LIMIT room.free FOR UPDATE SKIP LOCKED
        ) AS picked ORDER BY picked.next_attempt_at LIMIT $4
    ), taken AS (
        SELECT picked.outbox_id, awaited.until FROM picked CROSS JOIN LATERAL (
            SELECT max(CASE WHEN leased_by IS NULL THEN greatest(next_attempt_at, now()) ELSE now() END)
                   + interval '1 second' AS until
            FROM (SELECT * FROM postback_outbox WHERE conversion_id = picked.conversion_id OFFSET 0) AS earlier
            WHERE earlier.host = picked.host AND earlier.state = 'pending' AND earlier.event <> picked.event
              AND earlier.outbox_id < picked.outbox_id
        ) AS awaited
    )
    UPDATE postback_outbox AS outbox
    SET attempts = attempts + (taken.until IS NULL)::int, leased_by = CASE WHEN taken.until IS NULL THEN $5::int END,
        next_attempt_at = coalesce(taken.until, now() + make_interval(secs => $6))
    FROM taken WHERE outbox.outbox_id = taken.outbox_id
    RETURNING {", ".join(f"outbox.{name}" for name in Due._fields)}, taken.until IS NULL
"""
_LOG = """
    INSERT INTO postback_log (outbox_id, conversion_id, attempt, attempted_at, method, url, status_code, duration_ms,
                              error, answer)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""
_FINISH = """
    UPDATE postback_outbox AS outbox
    SET state = CASE ended.outcome WHEN 'failed' THEN 'pending' ELSE ended.outcome END,
        finished_at = CASE ended.outcome WHEN 'failed' THEN NULL ELSE now() END,
        next_attempt_at = now() + make_interval(secs => ended.retry_in_s),
        leased_by = NULL
    FROM unnest($1::bigint[], $2::int[], $3::text[], $4::float8[]) AS ended (outbox_id, attempt, outcome, retry_in_s)
    WHERE outbox.outbox_id = ended.outbox_id AND outbox.state <> 'delivered'
      AND (ended.outcome = 'delivered' OR (outbox.state = 'pending' AND outbox.attempts = ended.attempt))
"""


async def queue(conn: asyncpg.Connection, rows: Sequence[OutboxRow]) -> int:
    """Queue `rows`, those aside that are queued already; how many were new. Within the conversion's transaction."""
    if not rows:
        return 0
    # In key order: two transactions that queue the same rows do not wait for each other in a ring. A batch has what became
    # of conversions in turn, and how they began behind it (O5).
    ordered = sorted(rows, key=lambda row: (row.conversion_id.bytes, row.event != "decided"))
    done: str = await conn.execute(_QUEUE, *zip(*ordered, strict=True))
    return int(done.rpartition(" ")[2])


async def take_due(
    conn: asyncpg.Connection, *, node_id: int, busy: Mapping[str, int], per_host: int, limit: int, lease_s: float
) -> list[Due]:
    """Take rows that are due, at most `limit`, and per host what is left of `per_host` beside the `busy` ones."""
    rows = await conn.fetch(_TAKE, per_host, list(busy), list(busy.values()), limit, node_id, lease_s)
    return [Due(*row) for *row, is_due in rows if is_due]


async def finish(conn: asyncpg.Connection, attempts: Sequence[Attempt]) -> None:
    """Log how attempts ended, and move their rows on."""
    ordered = sorted(attempts)
    async with conn.transaction():
        await conn.executemany(_LOG, [attempt[:10] for attempt in ordered])
        await conn.execute(
            _FINISH,
            [one.outbox_id for one in ordered],
            [one.attempt for one in ordered],
            [one.outcome for one in ordered],
            [one.retry_in_s for one in ordered],
        )


async def free_leases(conn: asyncpg.Connection, node_id: int) -> int:
    """Make due again what this node's earlier sender had in hand; how many rows."""
    done: str = await conn.execute(
        "UPDATE postback_outbox SET leased_by = NULL, next_attempt_at = now()"
        " WHERE leased_by = $1 AND state = 'pending'",
        node_id,
    )
    return int(done.rpartition(" ")[2])


async def measure(conn: asyncpg.Connection) -> Backlog:
    """What waits to be sent, by all nodes."""
    row = await conn.fetchrow(
        "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8"
        " FROM postback_outbox WHERE state = 'pending'"
    )
    return Backlog(*row)


async def forget(conn: asyncpg.Connection, before: datetime, limit: int = 10_000) -> None:
    """Delete attempts, and rows that are done with, from before that moment; at most `limit` of each."""
    await conn.execute(
        "DELETE FROM postback_log WHERE log_id IN"
        " (SELECT log_id FROM postback_log WHERE attempted_at < $1 ORDER BY attempted_at LIMIT $2)",
        before,
        limit,
    )
    await conn.execute(
        "DELETE FROM postback_outbox WHERE outbox_id IN (SELECT outbox_id FROM postback_outbox"
        " WHERE created_at < $1 AND state <> 'pending' ORDER BY created_at LIMIT $2)",
        before,
        limit,
    )
