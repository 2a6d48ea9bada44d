"""Ids that are not ours: custom ids of clicks, and open clicks brought over from another network."""

from collections.abc import Collection, Mapping

import asyncpg

from storage.postgres.copy import Uuid


async def remember_external_ids(conn: asyncpg.Connection, click_ids: Mapping[str, bytes]) -> None:
    """Let each id stand for its click; one that stands for another already keeps it. In key order, as all upserts."""
    if click_ids:
        await conn.execute(
            "INSERT INTO external_ids (transaction_id, click_id)"
            ' SELECT * FROM unnest($1::text[], $2::uuid[]) AS new (id, click) ORDER BY id COLLATE "C"'
            " ON CONFLICT DO NOTHING",
            list(click_ids),
            [Uuid(click_id) for click_id in click_ids.values()],
        )


async def find_external_ids(conn: asyncpg.Connection, ids: Collection[str]) -> dict[str, bytes]:
    """The click ids that those of `ids` stand for which are known."""
    if not ids:
        return {}
    rows = await conn.fetch(
        "SELECT transaction_id, click_id FROM external_ids WHERE transaction_id = ANY($1)", list(ids)
    )
    return {row["transaction_id"]: row["click_id"].bytes for row in rows}


async def has_external_ids(conn: asyncpg.Connection) -> bool:
    """Whether this network has any: then a postback's id need not be one of ours."""
    is_any: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM external_ids)")
    return is_any


async def awaited_external_ids(conn: asyncpg.Connection, limit: int = 10_000) -> dict[str, bytes]:
    """Those known by now that conversions wait for, or were decided without; with the clicks they stand for."""
    rows = await conn.fetch(
        "SELECT DISTINCT external_id, known.click_id FROM conversions_waiting"
        " JOIN external_ids AS known ON known.transaction_id = external_id WHERE external_id IS NOT NULL LIMIT $1",
        limit,
    )
    return {row["external_id"]: row["click_id"].bytes for row in rows}
