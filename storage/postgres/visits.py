"""Who clicked on what lately: read back from `clicks` when a drain starts, and told among the drains of one node.

V1  `visit_batches` holds what each batch of a node with several drains added, numbered without a gap in the order of the
    commits: whoever adds a row holds the node's lock from before it looks for others' rows until its commit.
V2  Old rows go, the last one never: who finds a number missing knows that it missed some, and reads `clicks` again.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

# Of PostgreSQL's binary COPY: what precedes the rows, and a row of two int and two uuid, each with its length in front.
_HEADER_BYTES = 19
_ROW = struct.Struct(">2x4xi4xi4x16s4x16s")

EVERYWHERE = -1
"""Instead of a node's id: all nodes, whose drains share the events of all."""

_LOCK_CLASS = 0x56697369  # "Visi"; the second key is the node's id

Visit = tuple[int, int, bytes, bytes]
"""offer_id, aff_id, visitor, click_id."""


async def read_visits(
    conn: asyncpg.Connection,
    node_id: int,
    since_ms: int,
    not_counted: Sequence[str],
    take: Callable[[list[Visit]], None],
) -> None:
    """Hand the visits of the node's clicks since then to `take`, some at a time, in about their order.

    `not_counted`: flags of clicks that are no visits. By binary COPY: a cursor takes several times as long.
    """
    await conn.copy_from_query(
        "SELECT offer_id, aff_id, visitor, click_id FROM clicks"
        " WHERE click_id >= $1 AND $2 IN (node_id, -1) AND visitor IS NOT NULL AND NOT flags && $3::text[]",
        UUID(int=max(0, since_ms) << 80),
        node_id,
        list(not_counted),
        output=_Rows(take).receive,
        format="binary",
    )


async def stored_through(conn: asyncpg.Connection, node_id: int) -> tuple[int, int]:
    """Unix ms through which the node's events are stored, in the journal that is furthest and in the one furthest behind."""
    row = await conn.fetchrow(
        "SELECT max(watermark_ms) AS furthest, min(watermark_ms) FILTER (WHERE finished_at IS NULL) AS behind"
        " FROM journal_positions WHERE $1 IN (node_id, -1) AND watermark_ms > 0",
        node_id,
    )
    furthest = row["furthest"] or 0
    return furthest, furthest if row["behind"] is None else row["behind"]


class VisitBatch(NamedTuple):
    """A row of `visit_batches`; `visits` as they were given, empty for a batch of one's own."""

    seq: int
    visits: bytes


async def lock_visits(conn: asyncpg.Connection, node_id: int) -> None:
    """Be the only one of the node's drains between here and the transaction's end (V1)."""
    await conn.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCK_CLASS, node_id)


async def newer_batches(conn: asyncpg.Connection, node_id: int, seq: int, slot: int) -> list[VisitBatch]:
    """The node's rows after `seq`, in order; those of `slot` without their visits."""
    rows = await conn.fetch(
        "SELECT seq, CASE WHEN slot = $3 THEN '' ELSE visits END FROM visit_batches"
        " WHERE node_id = $1 AND seq > $2 ORDER BY seq",
        node_id,
        seq,
        slot,
    )
    return [VisitBatch(*row) for row in rows]


async def last_batch(conn: asyncpg.Connection, node_id: int) -> int:
    """The number of the node's last row, 0 without any."""
    seq: int = await conn.fetchval("SELECT coalesce(max(seq), 0) FROM visit_batches WHERE node_id = $1", node_id)
    return seq


async def add_batch(conn: asyncpg.Connection, node_id: int, slot: int, visits: bytes) -> None:
    """The next row; the lock is held."""
    await conn.execute(
        "INSERT INTO visit_batches (node_id, seq, slot, visits)"
        " SELECT $1, coalesce(max(seq), 0) + 1, $2, $3 FROM visit_batches WHERE node_id = $1",
        node_id,
        slot,
        visits,
    )


async def forget_batches(conn: asyncpg.Connection, node_id: int, before: datetime) -> None:
    """Delete the node's rows from before then, the last one excepted (V2)."""
    await conn.execute(
        "DELETE FROM visit_batches WHERE node_id = $1 AND stored_at < $2"
        " AND seq < (SELECT max(seq) FROM visit_batches WHERE node_id = $1)",
        node_id,
        before,
    )


async def is_stored(conn: asyncpg.Connection, click_id: bytes) -> bool:
    """Whether `clicks` has it; b"" is no click."""
    query = "SELECT EXISTS (SELECT FROM clicks WHERE click_id = $1)"
    return bool(click_id) and await conn.fetchval(query, UUID(bytes=click_id))


class _Rows:
    """Cuts the bytes of a COPY into rows, however they come."""

    def __init__(self, take: Callable[[list[Visit]], None]) -> None:
        self._take = take
        self._rest = b""
        self._skip = _HEADER_BYTES

    async def receive(self, data: bytes) -> None:
        data = self._rest + data
        first = min(self._skip, len(data))
        self._skip -= first
        end = len(data) - (len(data) - first) % _ROW.size
        self._take(list(_ROW.iter_unpack(memoryview(data)[first:end])))
        self._rest = data[end:]
