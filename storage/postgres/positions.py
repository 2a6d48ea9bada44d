"""How far each journal is stored: the compare-and-set that makes a record count exactly once.

P1  A batch's transaction first moves the journal's position from where the batch was read to where it ends.
    No row moved: somebody else stored it; the transaction stores nothing.
P2  After a connection is lost at COMMIT the position is read again, waiting for the old transaction's end.
P3  `watermark_ms`: every record of this journal whose id is of that millisecond or earlier is stored.
P4  A journal counts as finished once its writer is gone and its last record is stored.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.errors import StorageError


class PositionMoved(StorageError):
    """Another drain stored this part of the journal: whoever sees this must stop reading it."""


class Stored(NamedTuple):
    """A journal's row."""

    segment: int
    byte_offset: int
    watermark_ms: int
    is_finished: bool


FIRST_SEGMENT, FIRST_OFFSET = 1, 0


async def register(conn: asyncpg.Connection, journals: Iterable[tuple[UUID, int, int]]) -> None:
    """Make a row for each (journal_id, node_id, worker_id) that has none; all at once, so that P3 holds over restarts."""
    rows = list(journals)
    await conn.execute(
        "INSERT INTO journal_positions (journal_id, node_id, worker_id, segment, byte_offset)"
        " SELECT id, node, worker, $4, $5 FROM unnest($1::uuid[], $2::int[], $3::int[]) AS new (id, node, worker)"
        " ON CONFLICT DO NOTHING",
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        FIRST_SEGMENT,
        FIRST_OFFSET,
    )


async def read(conn: asyncpg.Connection, journal_id: UUID) -> Stored:
    """The journal's row, once no transaction holds it (P2)."""
    row = await conn.fetchrow(
        "SELECT segment, byte_offset, watermark_ms, finished_at IS NOT NULL AS is_finished"
        " FROM journal_positions WHERE journal_id = $1 FOR UPDATE",
        journal_id,
    )
    if row is None:
        raise PositionMoved(f"journal {journal_id.hex} has no position any more")
    return Stored(*row)


async def advance(
    conn: asyncpg.Connection,
    journal_id: UUID,
    before: tuple[int, int],
    after: tuple[int, int],
    watermark_ms: int,
) -> None:
    """P1. PositionMoved if the journal's position is not `before`."""
    moved = await conn.fetchval(
        "UPDATE journal_positions"
        " SET segment = $4, byte_offset = $5, watermark_ms = greatest(watermark_ms, $6), updated_at = now()"
        " WHERE journal_id = $1 AND segment = $2 AND byte_offset = $3 RETURNING true",
        journal_id,
        *before,
        *after,
        watermark_ms,
    )
    if not moved:
        raise PositionMoved(f"journal {journal_id.hex} was stored past segment {before[0]} offset {before[1]}")


async def finish(conn: asyncpg.Connection, journal_id: UUID, at: tuple[int, int]) -> None:
    """P4. PositionMoved if the journal's position is not `at`."""
    done = await conn.fetchval(
        "UPDATE journal_positions SET finished_at = now(), updated_at = now()"
        " WHERE journal_id = $1 AND segment = $2 AND byte_offset = $3 RETURNING true",
        journal_id,
        *at,
    )
    if not done:
        raise PositionMoved(f"journal {journal_id.hex} was stored past segment {at[0]} offset {at[1]}")


async def vouched_through(conn: asyncpg.Connection, minters: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """For each (node_id, worker_id): the millisecond through which everything it minted is stored; absent: none.

    A finished journal vouches only through its last record, an unfinished one holds the worker back.
    """
    rows = await conn.fetch(
        "SELECT node_id, worker_id, least(max(watermark_ms), min(watermark_ms) FILTER (WHERE finished_at IS NULL))"
        " AS through_ms FROM journal_positions"
        " WHERE (node_id, worker_id) IN (SELECT * FROM unnest($1::int[], $2::int[])) GROUP BY 1, 2",
        [node_id for node_id, _ in minters],
        [worker_id for _, worker_id in minters],
    )
    return {(row["node_id"], row["worker_id"]): row["through_ms"] for row in rows}


async def all_vouched_through(conn: asyncpg.Connection) -> int:
    """The millisecond through which every live journal is stored; -1 without a live journal."""
    through_ms: int | None = await conn.fetchval(
        "SELECT min(watermark_ms) FROM journal_positions WHERE finished_at IS NULL"
    )
    return -1 if through_ms is None else through_ms
