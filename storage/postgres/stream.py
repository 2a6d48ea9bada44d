"""How far a stream is stored, and the journals that come through it.

T1  Before anything of a journal is stored, it has a row for each of its partitions, and one for the whole: what is not
    stored yet of the others holds its watermark back.
T2  `stream_partitions.sequence`: whatever the stream brought of this partition up to there is stored, was stored before
    or begins behind a gap, and then it comes again. In a stream that was made anew the count begins anew.
T3  Only `stream_positions` says what is stored; a sequence that is too low costs time, and a second reader nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg


class Marks(NamedTuple):
    """How far partitions of a stream are stored, as the drain that owns them says."""

    drain_id: UUID
    stream: str
    """When it was created."""
    sequences: Mapping[int, int]


class Place(NamedTuple):
    """How far one partition of a journal is stored."""

    segment: int
    byte_offset: int
    is_finished: bool


class Arrival(NamedTuple):
    """A journal that has been seen in the stream."""

    journal_id: UUID
    node_id: int
    worker_id: int
    partitions: int


async def register(conn: asyncpg.Connection, arrivals: Iterable[Arrival]) -> None:
    """T1 for journals that may be known already."""
    rows = sorted(set(arrivals))
    ids, partitions = [row.journal_id for row in rows], [row.partitions for row in rows]
    async with conn.transaction():
        await conn.execute(
            "INSERT INTO journal_positions (journal_id, node_id, worker_id, segment, byte_offset, partitions)"
            " SELECT id, node, worker, 1, 0, partitions"
            " FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[]) AS new (id, node, worker, partitions)"
            " ON CONFLICT DO NOTHING",
            ids,
            [row.node_id for row in rows],
            [row.worker_id for row in rows],
            partitions,
        )
        await conn.execute(
            "INSERT INTO stream_positions (journal_id, partition)"
            " SELECT id, generate_series(0, partitions - 1) FROM unnest($1::uuid[], $2::int[]) AS new (id, partitions)"
            " ORDER BY 1, 2 ON CONFLICT DO NOTHING",
            ids,
            partitions,
        )


async def read_places(conn: asyncpg.Connection, journals: Iterable[UUID]) -> dict[tuple[UUID, int], Place]:
    """How far these journals are stored, by journal and partition; nothing of one that was never registered."""
    rows = await conn.fetch(
        "SELECT journal_id, partition, segment, byte_offset, finished_at IS NOT NULL FROM stream_positions"
        " WHERE journal_id = ANY($1::uuid[])",
        list(journals),
    )
    # asyncpg's own UUID class hashes and compares as the standard one.
    return {(row[0], row[1]): Place(*row[2:]) for row in map(tuple, rows)}


async def stalled(
    conn: asyncpg.Connection, partitions: Sequence[int], after_s: float
) -> list[tuple[UUID, int, tuple[int, int]]]:
    """Of these partitions, the unfinished journals that have not moved for so long: journal, partition, place."""
    rows = await conn.fetch(
        "SELECT journal_id, partition, segment, byte_offset FROM stream_positions"
        " WHERE finished_at IS NULL AND partition = ANY($1::int[])"
        " AND updated_at < clock_timestamp() - make_interval(secs => $2) ORDER BY 1, 2",
        list(partitions),
        after_s,
    )
    return [(row[0], row[1], (row[2], row[3])) for row in map(tuple, rows)]


async def read_sequences(conn: asyncpg.Connection, stream: str, partitions: Sequence[int]) -> dict[int, int]:
    """T2, for each of these partitions; 0 where nothing of this stream is stored yet."""
    rows = await conn.fetch(
        "SELECT partition, sequence FROM stream_partitions WHERE stream = $1 AND partition = ANY($2::int[])",
        stream,
        list(partitions),
    )
    return dict.fromkeys(partitions, 0) | {row["partition"]: row["sequence"] for row in rows}


async def forget_beyond(conn: asyncpg.Connection, stream: str, partitions: Sequence[int], last_sequence: int) -> None:
    """T2 for a stream that has gone back behind what was read of it: from a backup, say. Its next sequences are old ones."""
    await conn.execute(
        "WITH held AS MATERIALIZED (SELECT partition FROM stream_partitions"
        "   WHERE stream = $1 AND partition = ANY($2::int[]) AND sequence > $3 ORDER BY 1 FOR UPDATE)"
        " UPDATE stream_partitions p SET sequence = 0 FROM held WHERE p.partition = held.partition",
        stream,
        list(partitions),
        last_sequence,
    )


async def mark(conn: asyncpg.Connection, marks: Marks) -> None:
    """T2, in the transaction that stores it. What the drain does not own any more stays as it is."""
    partitions = sorted(marks.sequences)
    await conn.execute(
        "WITH new AS (SELECT * FROM unnest($3::int[], $4::bigint[]) AS new (partition, sequence)),"
        " held AS MATERIALIZED (SELECT p.partition FROM stream_partitions p JOIN new USING (partition)"
        "   WHERE p.owner = $1 ORDER BY 1 FOR UPDATE OF p)"
        " UPDATE stream_partitions p SET stream = $2,"
        "   sequence = CASE WHEN p.stream = $2 THEN greatest(p.sequence, new.sequence) ELSE new.sequence END"
        " FROM held JOIN new USING (partition) WHERE p.partition = new.partition AND p.owner = $1",
        marks.drain_id,
        marks.stream,
        partitions,
        [marks.sequences[partition] for partition in partitions],
    )


async def wanted_partitions(conn: asyncpg.Connection, configured: int) -> int:
    """How many partitions must be drained: as many as are configured, or as some unfinished journal has."""
    found: int = await conn.fetchval(
        "SELECT greatest($1::int, max(partitions)) FROM journal_positions WHERE finished_at IS NULL", configured
    )
    return found


async def stored_everywhere(conn: asyncpg.Connection, stream: str, wanted: int) -> int:
    """The sequence through which all of so many partitions are stored (T2)."""
    found: int = await conn.fetchval(
        "SELECT CASE WHEN count(*) < $2 THEN 0 ELSE min(CASE WHEN stream = $1 THEN sequence ELSE 0 END) END"
        " FROM stream_partitions WHERE partition < $2",
        stream,
        wanted,
    )
    return found


async def refresh_watermarks(conn: asyncpg.Connection) -> None:
    """Let each streamed journal's row say what its partitions have come to. Rows that somebody else holds are left out."""
    await conn.execute("""
        WITH least AS (
            SELECT s.journal_id, min(s.watermark_ms) AS through_ms, bool_and(s.finished_at IS NOT NULL) AS is_finished
            FROM stream_positions s JOIN journal_positions j USING (journal_id)
            WHERE j.finished_at IS NULL AND j.partitions > 0 GROUP BY 1
        ), held AS MATERIALIZED (
            SELECT j.journal_id, through_ms, is_finished FROM journal_positions j JOIN least USING (journal_id)
            WHERE j.finished_at IS NULL AND (through_ms > j.watermark_ms OR is_finished)
            ORDER BY 1 FOR UPDATE OF j SKIP LOCKED
        )
        UPDATE journal_positions j SET watermark_ms = greatest(j.watermark_ms, held.through_ms), updated_at = now(),
            finished_at = CASE WHEN held.is_finished THEN now() END
        FROM held WHERE j.journal_id = held.journal_id""")
