"""Who clicked on what lately, read back from `clicks` when a drain starts."""

import struct
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg

# Of PostgreSQL's binary COPY: what precedes the rows, and a row of two int and two uuid, each with its length in front.
_HEADER_BYTES = 19
_ROW = struct.Struct(">2x4xi4xi4x16s4x16s")

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
        " WHERE click_id >= $1 AND node_id = $2 AND visitor IS NOT NULL AND NOT flags && $3::text[]",
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
        " FROM journal_positions WHERE node_id = $1 AND watermark_ms > 0",
        node_id,
    )
    furthest = row["furthest"] or 0
    return furthest, furthest if row["behind"] is None else row["behind"]


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
