"""What is stored about one transaction id, for `explain`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection
from storage.postgres.external_ids import find_external_ids
from storage.postgres.partitions import day_of_id, id_range
from storage.postgres.postbacks import find_postbacks

Row = dict[str, Any]


class Story(NamedTuple):
    """Rows as they are; `click` and `impression` None where there is none."""

    click: Row | None
    impression: Row | None
    conversions: list[Row]
    changes: list[Row]
    waiting: list[Row]
    postbacks: list[Row]
    """What partners were told, each with its attempts as `log`."""
    erased_at: datetime | None = None
    """When the click, or what names somebody in its conversions, was erased."""


async def find_story(conn: Connection, transaction_id: str, click_id: bytes | None) -> Story:
    """All that carries this id; `click_id`: the id's bytes if it is well formed. Another system's id: that of its click too."""
    click, impression = await _find_touches(conn, click_id)
    if click is None and impression is None and (
        known := (await find_external_ids(conn, [transaction_id])).get(transaction_id)
    ):
        click_id = known
        click, impression = await _find_touches(conn, click_id)
    uuid = UUID(bytes=click_id) if click_id else None
    # transaction_id has no index: asked for only where there is no touch, as with a mistyped id.
    conversions = await _fetch(
        conn,
        "SELECT * FROM conversions WHERE click_id = $1 OR named_click_id = $1"
        " OR ($2 <> '' AND click_id IS NULL AND transaction_id = $2)"
        " ORDER BY received_at, conversion_id LIMIT 1000",
        uuid,
        "" if click or impression else transaction_id,
    )
    changes = await _fetch(
        conn,
        "SELECT * FROM conversion_changes WHERE conversion_id = ANY($1) ORDER BY change_id",
        [row["conversion_id"] for row in conversions],
    )
    postbacks = await find_postbacks(conn, [row["conversion_id"] for row in conversions])
    waiting = await _fetch(
        conn,
        "SELECT conversion_id, received_at, deadline, node_id = -1 AND external_id IS NULL AS is_word FROM conversions_waiting"
        " WHERE (click_id = $1 OR external_id = $2) AND decided_at IS NULL ORDER BY conversion_id",
        uuid,
        transaction_id,
    )
    return Story(click, impression, conversions, changes, waiting, postbacks)


async def find_conversion(conn: Connection, conversion_id: UUID) -> tuple[Row | None, list[Row]]:
    """A conversion and its changes; None: there is none of that id."""
    rows = await _fetch(conn, "SELECT * FROM conversions WHERE conversion_id = $1", conversion_id)
    query = "SELECT * FROM conversion_changes WHERE conversion_id = $1 ORDER BY change_id"
    return (rows[0] if rows else None), await _fetch(conn, query, conversion_id)


async def find_conversions(conn: Connection, conversion_ids: Sequence[UUID]) -> list[Row]:
    """Those of these conversions that are stored."""
    return await _fetch(conn, "SELECT * FROM conversions WHERE conversion_id = ANY($1)", list(conversion_ids))


async def _find_touches(conn: Connection, click_id: bytes | None) -> tuple[Row | None, Row | None]:
    if not click_id:
        return None, None
    return await _find_touch(conn, "clicks", click_id), await _find_touch(conn, "impressions", click_id)


async def _find_touch(conn: Connection, table: str, click_id: bytes) -> Row | None:
    low, high = id_range(day_of_id(click_id))
    rows = await _fetch(
        conn,
        f"SELECT * FROM {table} WHERE click_id = $1 AND click_id >= $2 AND click_id < $3",
        UUID(bytes=click_id),
        low,
        high,
    )
    return rows[0] if rows else None


async def _fetch(conn: Connection, query: str, *arguments: Any) -> list[Row]:
    return [dict(row) for row in await conn.fetch(query, *arguments)]
