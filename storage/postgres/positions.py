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


class Move(NamedTuple):
    """A journal's position goes from `before` to `after`."""

    journal_id: UUID
    partition: int | None
    """None: the journal as a whole; else as far as it is of this partition of the stream."""
    before: tuple[int, int]
    after: tuple[int, int]
    watermark_ms: int
    is_last: bool = False
    """The partition's part of the journal ends there."""


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


async def unfinished_segments(conn: asyncpg.Connection, journal_ids: Sequence[UUID]) -> dict[UUID, int]:
    """In which segment those of these journals are stored that are not finished; as committed, waiting for nobody."""
    rows = await conn.fetch(
        "SELECT journal_id, segment FROM journal_positions WHERE journal_id = ANY($1) AND finished_at IS NULL",
        list(journal_ids),
    )
    return {row["journal_id"]: row["segment"] for row in rows}


# The rows are locked in the order of their keys before any moves: two drains that both believe a journal to be theirs
# must not wait for each other in a circle.
_MOVE_JOURNALS = """
    WITH new AS (
        SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::bigint[])
            AS new (journal_id, segment, byte_offset, to_segment, to_offset, through_ms)
    ), held AS MATERIALIZED (
        SELECT p.journal_id FROM journal_positions p JOIN new USING (journal_id) ORDER BY 1 FOR UPDATE OF p
    )
    UPDATE journal_positions p SET segment = new.to_segment, byte_offset = new.to_offset,
        watermark_ms = greatest(p.watermark_ms, new.through_ms), updated_at = now()
    FROM held JOIN new USING (journal_id)
    WHERE p.journal_id = new.journal_id AND p.segment = new.segment AND p.byte_offset = new.byte_offset"""
_MOVE_PARTITIONS = """
    WITH new AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::bigint[], $7::int[], $8::bool[]
        ) AS new (journal_id, segment, byte_offset, to_segment, to_offset, through_ms, partition, is_last)
    ), held AS MATERIALIZED (
        SELECT p.journal_id, p.partition FROM stream_positions p JOIN new USING (journal_id, partition)
        ORDER BY 1, 2 FOR UPDATE OF p
    )
    UPDATE stream_positions p SET segment = new.to_segment, byte_offset = new.to_offset,
        watermark_ms = greatest(p.watermark_ms, new.through_ms), updated_at = now(),
        finished_at = coalesce(p.finished_at, CASE WHEN new.is_last THEN now() END)
    FROM held JOIN new USING (journal_id, partition)
    WHERE p.journal_id = new.journal_id AND p.partition = new.partition
        AND p.segment = new.segment AND p.byte_offset = new.byte_offset"""


async def advance(conn: asyncpg.Connection, moves: Sequence[Move]) -> None:
    """P1, for each journal and partition at most one move. PositionMoved if one is not where its move begins."""
    local = [move for move in moves if move.partition is None]
    streamed = [move for move in moves if move.partition is not None]
    if local:
        await _move(conn, _MOVE_JOURNALS, local)
    if streamed:
        partitions, lasts = [move.partition for move in streamed], [move.is_last for move in streamed]
        await _move(conn, _MOVE_PARTITIONS, streamed, partitions, lasts)


async def _move(conn: asyncpg.Connection, statement: str, moves: Sequence[Move], *columns: Sequence[object]) -> None:
    status = await conn.execute(
        statement,
        [move.journal_id for move in moves],
        [move.before[0] for move in moves],
        [move.before[1] for move in moves],
        [move.after[0] for move in moves],
        [move.after[1] for move in moves],
        [move.watermark_ms for move in moves],
        *columns,
    )
    if status != f"UPDATE {len(moves)}":
        first = moves[0]
        whose = f"journal {first.journal_id.hex}" if len(moves) == 1 else f"one of {len(moves)} journals"
        raise PositionMoved(f"{whose} was stored past segment {first.before[0]} offset {first.before[1]}")


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


async def others_vouched_through(conn: asyncpg.Connection, journal_id: UUID | None) -> int | None:
    """As `all_vouched_through`, of the journals beside that one; None: there is no other.

    One that comes through a stream is stored in as many parts as that has partitions: it counts as well.
    """
    through_ms: int | None = await conn.fetchval(
        "SELECT min(watermark_ms) FROM journal_positions WHERE finished_at IS NULL"
        " AND (partitions > 0 OR journal_id IS DISTINCT FROM $1)",
        journal_id,
    )
    return through_ms
