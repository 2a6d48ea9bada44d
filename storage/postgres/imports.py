"""Clicks brought over from another tracker: their old ids, and which of our own are still free.

I1  One import at a time stores a batch (advisory lock, held to the batch's end), so none mints an id that another has.
I2  An old id is claimed in the transaction that stores its click: a file read twice stores each click once.
"""

from collections.abc import Collection, Iterable
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid

_LOCK_KEY = 0x436C69636B456469


async def lock_imports(conn: Connection) -> None:
    """Wait for the turn of this transaction (I1)."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)


async def known_ids(conn: Connection, transaction_ids: Collection[str]) -> set[str]:
    """Those of the old ids that have a click already."""
    rows = await conn.fetch(
        "SELECT transaction_id FROM external_ids WHERE transaction_id = ANY($1)", list(transaction_ids)
    )
    return {row["transaction_id"] for row in rows}


async def claim_ids(conn: Connection, click_ids: dict[str, bytes]) -> set[str]:
    """Give old ids (the keys) their clicks; those that nobody held (I2). In key order: no two wait in a ring."""
    rows = await conn.fetch(
        "INSERT INTO external_ids (transaction_id, click_id)"
        ' SELECT * FROM unnest($1::text[], $2::uuid[]) AS new (id, click_id) ORDER BY id COLLATE "C"'
        " ON CONFLICT DO NOTHING RETURNING transaction_id",
        list(click_ids),
        [Uuid(click_id) for click_id in click_ids.values()],
    )
    return {row["transaction_id"] for row in rows}


async def last_ids(conn: Connection, node_id: int, worker_id: int, moments_ms: Iterable[int]) -> dict[int, bytes | None]:
    """For each millisecond the highest click id that this worker of this node has there; None for none."""
    moments = sorted(moments_ms)
    rows = await conn.fetch(
        "SELECT wanted.ms, found.click_id"
        " FROM unnest($1::bigint[], $2::uuid[], $3::uuid[]) AS wanted (ms, low, high) LEFT JOIN LATERAL ("
        "  SELECT click_id FROM clicks WHERE click_id >= wanted.low AND click_id < wanted.high AND node_id = $4"
        "  AND get_byte(uuid_send(click_id), 8) & 63 = $5 ORDER BY click_id DESC LIMIT 1"
        " ) AS found ON true",
        moments,
        [UUID(int=ms << 80) for ms in moments],
        [UUID(int=(ms + 1) << 80) for ms in moments],
        node_id,
        worker_id,
    )
    return {row["ms"]: row["click_id"].bytes if row["click_id"] else None for row in rows}
