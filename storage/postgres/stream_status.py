"""What `clickedge stream` shows and does: partitions and their owners, journals on their way, one that will never end."""

from typing import NamedTuple
from uuid import UUID

import asyncpg


class PartitionRow(NamedTuple):
    """A partition, and who drains it; `owner_name` empty: nobody."""

    partition: int
    owner_name: str
    owned_s: float
    sequence: int
    takeovers: int


class JournalRow(NamedTuple):
    """An unfinished journal: how long ago the last of its events that are stored in all partitions happened, and moved."""

    journal_id: UUID
    node_id: int
    worker_id: int
    partitions: int
    behind_s: float
    quiet_s: float
    least_place: tuple[int, int]


async def list_partitions(conn: asyncpg.Connection) -> list[PartitionRow]:
    """All that there are, in order."""
    rows = await conn.fetch(
        "SELECT partition, CASE WHEN leased_until >= clock_timestamp() THEN owner_name ELSE '' END,"
        " coalesce(extract(epoch FROM clock_timestamp() - owned_since), 0)::float8, sequence, takeovers"
        " FROM stream_partitions ORDER BY 1"
    )
    return [PartitionRow(*row) for row in rows]


async def list_streamed_journals(conn: asyncpg.Connection) -> list[JournalRow]:
    """Those that are not finished, the one that is furthest behind first."""
    rows = await conn.fetch("""
        SELECT j.journal_id, node_id, worker_id, partitions,
            (extract(epoch FROM clock_timestamp()) - min(s.watermark_ms) / 1000.0)::float8 AS behind_s,
            extract(epoch FROM clock_timestamp() - max(s.updated_at))::float8 AS quiet_s,
            min((s.segment::bigint << 44) + s.byte_offset) AS place
        FROM journal_positions j JOIN stream_positions s USING (journal_id)
        WHERE j.finished_at IS NULL AND s.finished_at IS NULL GROUP BY 1 ORDER BY min(s.watermark_ms), 1""")
    offset_bits = (1 << 44) - 1
    return [
        JournalRow(one["journal_id"], one["node_id"], one["worker_id"], one["partitions"], one["behind_s"], one["quiet_s"],
                   (one["place"] >> 44, one["place"] & offset_bits))
        for one in rows
    ]  # fmt: skip


async def end_journal(conn: asyncpg.Connection, journal_id: UUID, *, quiet_s: float) -> bool | None:
    """Count a journal as finished, though nobody has seen its end: its disk is gone.

    False: it moved less than `quiet_s` ago; None: there is no such journal, or it is finished.
    """
    async with conn.transaction():
        # In this order, as the drains lock them.
        moved_s = await conn.fetchval(
            "SELECT extract(epoch FROM clock_timestamp() - max(updated_at))::float8 FROM"
            " (SELECT updated_at FROM stream_positions WHERE journal_id = $1 ORDER BY partition FOR UPDATE) AS held",
            journal_id,
        )
        if moved_s is None:
            return None
        if moved_s < quiet_s:
            return False
        await conn.execute(
            "UPDATE stream_positions SET finished_at = now() WHERE journal_id = $1 AND finished_at IS NULL", journal_id
        )
        status = await conn.execute(
            "UPDATE journal_positions SET finished_at = now() WHERE journal_id = $1 AND finished_at IS NULL", journal_id
        )
    return True if status == "UPDATE 1" else None
