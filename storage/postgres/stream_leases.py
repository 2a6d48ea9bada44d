"""Which drain reads which partitions of the stream: leases, shared out evenly, all by the database's clock.

A lease only spares work: two that hold the same one, for a moment, store nothing twice (positions.py, P1).
A row that is locked is left alone: its owner is in the middle of a transaction, so it lives.
"""

from typing import NamedTuple
from uuid import UUID

import asyncpg


class Holding(NamedTuple):
    """What a drain has after a round of sharing out."""

    partitions: tuple[int, ...]
    """Its own, in order."""
    wanted: int
    """Partitions there are."""
    takeovers: int
    """Those that it took now, from drains that let their leases run out."""


async def share_out(
    conn: asyncpg.Connection, drain_id: UUID, name: str, *, wanted: int, lease_s: float
) -> Holding:
    """Say that this drain lives, renew what it holds, let go of what is more than its share, take what is free."""
    fair = -(-wanted // await _join(conn, drain_id, name, lease_s))
    rows = await conn.fetch(
        "UPDATE stream_partitions SET leased_until = clock_timestamp() + make_interval(secs => $2)"
        " WHERE owner = $1 RETURNING partition",
        drain_id,
        lease_s,
    )
    held = sorted(row["partition"] for row in rows)
    kept = [partition for partition in held if partition < wanted][:fair]
    if len(kept) < len(held):
        await _let_go(conn, drain_id, [partition for partition in held if partition not in kept])
    taken, takeovers = await _claim(conn, drain_id, name, wanted, fair - len(kept), lease_s)
    return Holding(tuple(sorted([*kept, *taken])), wanted, takeovers)


async def leave(conn: asyncpg.Connection, drain_id: UUID) -> None:
    """Let go of everything: others need not wait until the leases run out."""
    await conn.execute("DELETE FROM stream_drains WHERE drain_id = $1", drain_id)
    await _let_go(conn, drain_id, None)


async def make_rows(conn: asyncpg.Connection, wanted: int) -> None:
    """A row for each of so many partitions; and none any more for drains that have been gone for a day."""
    await conn.execute(
        "INSERT INTO stream_partitions (partition) SELECT generate_series(0, $1 - 1) ORDER BY 1 ON CONFLICT DO NOTHING",
        wanted,
    )
    await conn.execute("DELETE FROM stream_drains WHERE seen_at < clock_timestamp() - interval '1 day'")


async def count_unowned(conn: asyncpg.Connection, wanted: int) -> int:
    """How many of so many partitions nobody holds a lease of that is in force."""
    count: int = await conn.fetchval(
        "SELECT $1 - count(*) FROM stream_partitions"
        " WHERE partition < $1 AND owner IS NOT NULL AND leased_until >= clock_timestamp()",
        wanted,
    )
    return count


async def _join(conn: asyncpg.Connection, drain_id: UUID, name: str, lease_s: float) -> int:
    """How many drains live, this one included."""
    count: int = await conn.fetchval(
        "WITH me AS (INSERT INTO stream_drains (drain_id, name, seen_at) VALUES ($1, $2, clock_timestamp())"
        "   ON CONFLICT (drain_id) DO UPDATE SET seen_at = excluded.seen_at)"
        " SELECT 1 + count(*) FROM stream_drains"
        " WHERE drain_id <> $1 AND seen_at >= clock_timestamp() - make_interval(secs => $3)",
        drain_id,
        name,
        lease_s,
    )
    return count


async def _let_go(conn: asyncpg.Connection, drain_id: UUID, partitions: list[int] | None) -> None:
    await conn.execute(
        "UPDATE stream_partitions SET owner = NULL, leased_until = '-infinity'"
        " WHERE owner = $1 AND ($2::int[] IS NULL OR partition = ANY($2))",
        drain_id,
        partitions,
    )


async def _claim(
    conn: asyncpg.Connection, drain_id: UUID, name: str, wanted: int, count: int, lease_s: float
) -> tuple[list[int], int]:
    """At most `count` free partitions below `wanted`, and how many of them somebody had let run out."""
    if count <= 0:
        return [], 0
    rows = await conn.fetch(
        "UPDATE stream_partitions p SET owner = $1, owner_name = $2, owned_since = clock_timestamp(),"
        "   leased_until = clock_timestamp() + make_interval(secs => $5), takeovers = takeovers + was_owned::int"
        " FROM (SELECT partition, owner IS NOT NULL AS was_owned FROM stream_partitions"
        "   WHERE partition < $3 AND (owner IS NULL OR leased_until < clock_timestamp())"
        "   ORDER BY partition LIMIT $4 FOR UPDATE SKIP LOCKED) free"
        " WHERE p.partition = free.partition RETURNING p.partition, was_owned",
        drain_id,
        name,
        wanted,
        count,
        lease_s,
    )
    return [row["partition"] for row in rows], sum(row["was_owned"] for row in rows)
