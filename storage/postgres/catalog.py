"""The catalog in Postgres: revisions, and items as they were from one revision until before another.

C1  An item is in force at revision r when `revision_from <= r` and (`revision_to` is null or `revision_to > r`).
C2  Rows of a stored revision never change but for `revision_to`, once, when a later revision ends them.
C3  Revisions are stored one at a time (advisory lock), each against the one its author saw.
C4  No revision is stored while a transaction holds the catalog; the usage of what changes is to be counted anew (U3).
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg

from storage.errors import StorageError

CHANNEL = "clickedge_catalog"
_LOCK = 0x636C6B63  # "clkc": any number that nothing else here locks
_HELD = 0x636C6B68  # "clkh"

Connection: TypeAlias = asyncpg.Connection
Item = tuple[str, str, bytes]
Change = tuple[str, str, bytes | None]
"""Table, id, body; None: the item ends."""

_IN_FORCE = "revision_from <= $1 AND (revision_to IS NULL OR revision_to > $1)"
_CURRENT = "SELECT coalesce(max(revision), 0) FROM catalog_revisions"
_CHANGES = """
    SELECT kind, id, body FROM catalog_items
    WHERE revision_from > $1 AND revision_from <= $2 AND (revision_to IS NULL OR revision_to > $2)
    UNION ALL
    SELECT DISTINCT kind, id, NULL::bytea FROM catalog_items AS ended
    WHERE revision_to > $1 AND revision_to <= $2 AND NOT EXISTS (
        SELECT FROM catalog_items AS held
        WHERE held.kind = ended.kind AND held.id = ended.id
          AND held.revision_from <= $2 AND (held.revision_to IS NULL OR held.revision_to > $2))
"""
_END = """
    UPDATE catalog_items SET revision_to = $1
    FROM unnest($2::text[], $3::text[]) AS changed (kind, id)
    WHERE catalog_items.kind = changed.kind AND catalog_items.id = changed.id AND revision_to IS NULL
"""


class CatalogMoved(StorageError):
    """Another revision was stored since this change was worked out."""

    retryable = True

    def __init__(self, expected: int, current: int) -> None:
        """`expected`: the revision the author saw; `current`: the one in force."""
        self.expected = expected
        self.current = current
        super().__init__(f"the catalog changed meanwhile (revision {expected} -> {current}): apply the file again")


async def listen(conn: Connection, on_notice: Callable[[], object]) -> None:
    """Call `on_notice` whenever a revision is stored, as long as the connection lasts."""
    await conn.add_listener(CHANNEL, lambda *_: on_notice())


async def load_revision(conn: Connection) -> int:
    """The revision in force; 0 before the first."""
    revision: int = await conn.fetchval(_CURRENT)
    return revision


async def load_revision_since(conn: Connection, known: int) -> tuple[int, datetime | None]:
    """The revision in force, and when `known` was stored; None: this database does not have that one.

    One restored from a backup may give its number to another revision, but not at the same moment.
    """
    row = await conn.fetchrow(
        f"SELECT ({_CURRENT}), (SELECT created_at FROM catalog_revisions WHERE revision = $1)", known
    )
    return row[0], row[1]


async def hold_catalog(conn: Connection) -> int:
    """The revision in force, which it stays until this transaction ends (C4)."""
    await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", _HELD)
    return await load_revision(conn)


async def load_current(conn: Connection) -> tuple[int, list[Item]]:
    """The revision in force and its items."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        revision = await load_revision(conn)
        return revision, await load_at(conn, revision)


async def load_at(conn: Connection, revision: int) -> list[Item]:
    """The items in force at that revision."""
    rows = await conn.fetch(f"SELECT kind, id, body FROM catalog_items WHERE {_IN_FORCE}", revision)
    return [(row[0], row[1], row[2]) for row in rows]


async def load_offers(conn: Connection, offer_ids: Sequence[int]) -> dict[int, bytes]:
    """The bodies of those offers as they are in force now."""
    rows = await conn.fetch(
        "SELECT id::int, body FROM catalog_items WHERE kind = 'offers' AND id = ANY($1) AND revision_to IS NULL",
        [str(offer_id) for offer_id in offer_ids],
    )
    return {row[0]: row[1] for row in rows}


async def load_offers_at(conn: Connection, revision: int, offer_ids: Sequence[int]) -> dict[int, bytes]:
    """The bodies of those offers as they were in force at that revision."""
    rows = await conn.fetch(
        f"SELECT id::int, body FROM catalog_items WHERE kind = 'offers' AND id = ANY($2) AND {_IN_FORCE}",
        revision,
        [str(offer_id) for offer_id in offer_ids],
    )
    return {row[0]: row[1] for row in rows}


async def load_owners(conn: Connection, offers: Collection[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Whose these offers were: the advertiser, by offer and revision; what no revision knew is left out."""
    if not offers:
        return {}
    rows = await conn.fetch(
        "SELECT asked.id, asked.revision, (convert_from(body, 'UTF8')::jsonb ->> 'advertiser_id')::int"
        " FROM unnest($1::int[], $2::bigint[]) AS asked (id, revision) JOIN catalog_items AS item"
        " ON kind = 'offers' AND item.id = asked.id::text AND revision_from <= asked.revision"
        " AND (revision_to IS NULL OR revision_to > asked.revision)",
        *map(list, zip(*offers, strict=True)),
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def holds_item(conn: Connection, kind: str, item_id: str) -> bool:
    """Whether that item is in force now."""
    held: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM catalog_items WHERE kind = $1 AND id = $2 AND revision_to IS NULL)", kind, item_id
    )
    return held


async def load_versions(conn: Connection, kind: str, item_id: str, limit: int = 200) -> list[bytes]:
    """The bodies that the item ever had, the latest first, at most `limit`."""
    rows = await conn.fetch(
        "SELECT body FROM catalog_items WHERE kind = $1 AND id = $2 ORDER BY revision_from DESC LIMIT $3",
        kind,
        item_id,
        limit,
    )
    return [row[0] for row in rows]


async def load_part_ids(conn: Connection, offer_id: int, field: str) -> set[int]:
    """The ids that goals, pages or creatives of the offer ever had: what is listed in that field of its versions."""
    rows = await conn.fetch(
        "SELECT DISTINCT (part ->> 'id')::int FROM catalog_items"
        " CROSS JOIN LATERAL jsonb_array_elements(convert_from(body, 'UTF8')::jsonb -> $2) AS part"
        " WHERE kind = 'offers' AND id = $1",
        str(offer_id),
        field,
    )
    return {row[0] for row in rows}


async def load_highest_id(conn: Connection, kind: str) -> int:
    """The highest number that an item of that table ever had; 0: none."""
    return int(await conn.fetchval("SELECT coalesce(max(id::bigint), 0) FROM catalog_items WHERE kind = $1", kind))


async def load_changes(conn: Connection, after_revision: int, through: int) -> list[Change]:
    """What turns the catalog of one revision into that of a later one."""
    rows = await conn.fetch(_CHANGES, after_revision, through)
    return [(row[0], row[1], row[2]) for row in rows]


async def store_revision(
    conn: Connection,
    changes: Sequence[Change],
    *,
    base_revision: int,
    actor: str,
    note: str = "",
    source_hash: str = "",
) -> int:
    """Store `changes`, worked out against `base_revision`, as the next revision, and tell who listens.

    `source_hash`: of the file they came from, "" for none. CatalogMoved if another revision came first.
    """
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        current = await load_revision(conn)
        if current != base_revision:
            raise CatalogMoved(base_revision, current)
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _HELD)
        revision = current + 1
        await conn.execute(
            "INSERT INTO catalog_revisions (revision, actor, note, source_hash) VALUES ($1, $2, $3, $4)",
            revision,
            actor,
            note,
            source_hash,
        )
        await conn.execute(_END, revision, [kind for kind, _, _ in changes], [item_id for _, item_id, _ in changes])
        await conn.copy_records_to_table(
            "catalog_items",
            records=[(kind, item_id, revision, body) for kind, item_id, body in changes if body is not None],
            columns=["kind", "id", "revision_from", "body"],
        )
        await conn.execute(
            "UPDATE cap_usage SET is_counted = false WHERE is_counted AND offer_id = ANY($1::int[])",
            [int(item_id) for kind, item_id, _ in changes if kind == "offers"],
        )
        await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, str(revision))
    return revision


async def last_source_hash(conn: Connection) -> str:
    """The hash of the file applied last; "" if there was none."""
    found = await conn.fetchval(
        "SELECT source_hash FROM catalog_revisions WHERE source_hash <> '' ORDER BY revision DESC LIMIT 1"
    )
    return found or ""


async def store_source_hash(conn: Connection, revision: int, source_hash: str) -> None:
    """Note that the file of that hash was applied and is, without a change, what this revision holds."""
    await conn.execute("UPDATE catalog_revisions SET source_hash = $2 WHERE revision = $1", revision, source_hash)
