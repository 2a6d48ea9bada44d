"""The rows of erased people: found, taken away, or left without what names anybody. Each function is for one kind of row.

Nothing here begins a transaction. Locks are taken in the order of a drain's: waiting conversions, conversions, clicks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from storage.postgres.click_values import doubt_days
from storage.postgres.partitions import id_range

TOUCH_TABLES = ("clicks", "impressions")
INDEXED_CHARS = 256
_PAGE = 1000


class Found(NamedTuple):
    """A click or impression to be erased."""

    click_id: UUID
    contact_id: str


async def partition_days(conn: asyncpg.Connection, table: str) -> list[date]:
    """The days that `clicks` or `impressions` has partitions of, the last first."""
    rows = await conn.fetch(
        "SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day FROM pg_inherits JOIN pg_class AS child"
        " ON child.oid = inhrelid WHERE inhparent = $1::text::regclass AND child.relname ~ '_[0-9]{8}$' ORDER BY 1 DESC",
        table,
    )
    return [row["day"] for row in rows]


async def find_by_contact(
    conn: asyncpg.Connection, table: str, day: date, contact_id: str, below: UUID, limit: int
) -> list[Found]:
    """Touches of that day that name the contact, with ids below that one."""
    # As the index says it; a longer one has no place in an index, and the day is read through.
    indexed = "contact_id <> '' AND length(contact_id) <= 256 AND " if len(contact_id) <= INDEXED_CHARS else ""
    return await _find(conn, table, day, f"{indexed}contact_id = $3", contact_id, below, limit)


async def find_by_address(
    conn: asyncpg.Connection, table: str, day: date, network: str, below: UUID, limit: int
) -> list[Found]:
    """Touches of that day from the network, with ids below that one: the day is read through."""
    return await _find(conn, table, day, "ip <<= $3::text::inet", network, below, limit)


async def find_by_id(conn: asyncpg.Connection, table: str, day: date, click_id: UUID) -> list[Found]:
    """The click or impression of that id, if it is there."""
    above = UUID(int=click_id.int + 1)
    return await _find(conn, table, day, "click_id = $3", click_id, above, 1)


async def _find(
    conn: asyncpg.Connection, table: str, day: date, condition: str, value: object, below: UUID, limit: int
) -> list[Found]:
    low, high = id_range(day)
    rows = await conn.fetch(
        f"SELECT click_id, contact_id FROM {table} WHERE click_id >= $1 AND click_id < $2 AND click_id < $4"
        f" AND {condition} LIMIT $5",
        low,
        high,
        value,
        below,
        limit,
    )
    return [Found(*row) for row in rows]


async def distinct_addresses(conn: asyncpg.Connection, table: str, day: date) -> list[str]:
    """The addresses that a day's touches came from."""
    low, high = id_range(day)
    rows = await conn.fetch(
        f"SELECT DISTINCT host(ip) AS ip FROM {table} WHERE click_id >= $1 AND click_id < $2 AND ip IS NOT NULL", low, high
    )
    return [row["ip"] for row in rows]


async def ids_of_day(conn: asyncpg.Connection, table: str, day: date) -> list[UUID]:
    """The ids of a day's touches."""
    low, high = id_range(day)
    rows = await conn.fetch(f"SELECT click_id FROM {table} WHERE click_id >= $1 AND click_id < $2", low, high)
    return [row["click_id"] for row in rows]


async def clicks_of_conversions(conn: asyncpg.Connection, day: date) -> list[UUID]:
    """The clicks of that day that conversions were credited to."""
    low, high = id_range(day)
    rows = await conn.fetch("SELECT DISTINCT click_id FROM conversions WHERE click_id >= $1 AND click_id < $2", low, high)
    return [row["click_id"] for row in rows]


async def distinct_of_conversions(conn: asyncpg.Connection) -> tuple[list[str], list[str]]:
    """Contacts that conversions name, and addresses that they came from."""
    contacts = await conn.fetch("SELECT DISTINCT contact_id FROM conversions WHERE contact_id <> ''")
    addresses = await conn.fetch("SELECT DISTINCT host(ip) FROM conversions WHERE ip IS NOT NULL")
    return [row[0] for row in contacts], [row[0] for row in addresses]


async def delete_touches(conn: asyncpg.Connection, table: str, day: date, ids: Sequence[UUID]) -> int:
    """Delete touches of one day, and what was made of them; how many touches there were."""
    await conn.execute("DELETE FROM converted_clicks WHERE click_id = ANY($1)", ids)
    await conn.execute("DELETE FROM external_ids WHERE click_id = ANY($1)", ids)
    low, high = id_range(day)
    done: str = await conn.execute(
        f"DELETE FROM {table} WHERE click_id = ANY($1) AND click_id >= $2 AND click_id < $3", ids, low, high
    )
    if table == "clicks":
        await forget_values(conn, [day])
    return _count(done)


async def forget_values(conn: asyncpg.Connection, days: Collection[date]) -> None:
    """What the clicks of these days add up to by value is summed anew."""
    await doubt_days(conn, days)
    await conn.execute("DELETE FROM click_values WHERE day = ANY($1)", list(days))


_HAS_MORE = (
    "(erased_at IS NULL"
    " OR EXISTS (SELECT FROM conversion_changes AS change WHERE change.conversion_id = conversions.conversion_id"
    "  AND (note <> '' OR cause_params <> '{}'))"
    " OR EXISTS (SELECT FROM postback_log AS told WHERE told.conversion_id = conversions.conversion_id"
    "  AND (url <> '' OR answer <> '' OR error <> '')))"
)


async def conversions_of_clicks(conn: asyncpg.Connection, ids: Sequence[UUID], until: datetime) -> list[UUID]:
    """Conversions by then that were credited to these touches or named them, with something left to take out; locked."""
    return await _lock_conversions(conn, "(click_id = ANY($2) OR named_click_id = ANY($2))", ids, until)


async def conversions_of_contact(conn: asyncpg.Connection, contact_id: str, until: datetime, limit: int) -> list[UUID]:
    """Conversions by then that name the contact; locked."""
    indexed = "contact_id <> '' AND length(contact_id) <= 256 AND " if len(contact_id) <= INDEXED_CHARS else ""
    return await _lock_conversions(conn, f"{indexed}contact_id = $2", contact_id, until, limit)


async def conversions_of_network(conn: asyncpg.Connection, network: str, until: datetime, limit: int) -> list[UUID]:
    """Conversions by then from the network; locked."""
    return await _lock_conversions(conn, "ip <<= $2::text::inet", network, until, limit)


async def _lock_conversions(
    conn: asyncpg.Connection, condition: str, value: object, until: datetime, limit: int | None = None
) -> list[UUID]:
    rows = await conn.fetch(
        f"SELECT conversion_id FROM conversions WHERE {condition} AND received_at <= $1 AND {_HAS_MORE}"
        " ORDER BY conversion_id LIMIT $3 FOR UPDATE",
        until,
        value,
        limit,
    )
    return [row["conversion_id"] for row in rows]


async def strip_conversions(
    conn: asyncpg.Connection, ids: Sequence[UUID], now: datetime, mask: Callable[[str], str]
) -> dict[str, int]:
    """Take out of conversions what can name a person, and of what hangs on them; rows by table.

    `mask`: what stands for a uniqueness key from now on.
    """
    if not ids:
        return {}
    kept = "CASE WHEN transaction_id = replace(click_id::text, '-', '') THEN transaction_id ELSE '' END"
    await conn.execute(
        "UPDATE conversions SET erased_at = $2, ip = NULL, contact_id = '', conversion_unique_id = '', promo_code = '',"
        " adv_sub1 = '', adv_sub2 = '', adv_sub3 = '', adv_sub4 = '', adv_sub5 = '', transaction_id = coalesce("
        f" {kept}, ''), extras = (SELECT coalesce(jsonb_object_agg(key, value), '{{}}') FROM jsonb_each(extras)"
        " WHERE key IN ('touch', 'repeated')) WHERE conversion_id = ANY($1)",
        ids,
        now,
    )
    changes = await conn.execute(
        "UPDATE conversion_changes SET note = '', cause_params = '{}' WHERE conversion_id = ANY($1)"
        " AND (note <> '' OR cause_params <> '{}')",
        ids,
    )
    told = await conn.execute(
        "UPDATE postback_log SET url = '', answer = '', error = '' WHERE conversion_id = ANY($1)"
        " AND (url <> '' OR answer <> '' OR error <> '')",
        ids,
    )
    await _mask_keys(conn, ids, mask)
    return {"conversions": len(ids), "conversion_changes": _count(changes), "postback_log": _count(told)}


async def _mask_keys(conn: asyncpg.Connection, ids: Sequence[UUID], mask: Callable[[str], str]) -> None:
    rows = await conn.fetch(
        "SELECT key FROM conversion_keys WHERE conversion_id = ANY($1) AND left(key, 2) IN ('u:', 'e:', 'p:')", ids
    )
    keys = [row["key"] for row in rows]
    if keys:
        await conn.execute(
            "WITH masks AS (SELECT * FROM unnest($1::text[], $2::text[]) AS mask (key, masked)),"
            " held AS (SELECT key, masked FROM conversion_keys JOIN masks USING (key)"
            '  ORDER BY key COLLATE "C" FOR UPDATE OF conversion_keys)'
            " UPDATE conversion_keys SET key = held.masked FROM held WHERE conversion_keys.key = held.key",
            keys,
            [mask(key) for key in keys],
        )


async def find_masked(conn: asyncpg.Connection, masked: Collection[str]) -> set[str]:
    """Those of these masked keys that a conversion holds."""
    if not masked:
        return set()
    rows = await conn.fetch("SELECT key FROM conversion_keys WHERE key = ANY($1)", list(masked))
    return {row["key"] for row in rows}


async def lock_waiting(
    conn: asyncpg.Connection, click_ids: Sequence[UUID] | None, until: datetime
) -> list[tuple[UUID, bytes]]:
    """Waiting conversions received by then, each with its event: of these clicks, or all; locked."""
    rows = await conn.fetch(
        "SELECT conversion_id, event FROM conversions_waiting WHERE received_at <= $1"
        " AND ($2::uuid[] IS NULL OR click_id = ANY($2)) ORDER BY conversion_id FOR UPDATE",
        until,
        click_ids,
    )
    return [(row["conversion_id"], row["event"]) for row in rows]


async def page_waiting(conn: asyncpg.Connection, until: datetime, after: UUID) -> list[tuple[UUID, bytes]]:
    """Some of the waiting conversions received by then, in order from behind that one; not locked."""
    rows = await conn.fetch(
        "SELECT conversion_id, event FROM conversions_waiting WHERE received_at <= $1 AND conversion_id > $2"
        f" ORDER BY conversion_id LIMIT {_PAGE}",
        until,
        after,
    )
    return [(row["conversion_id"], row["event"]) for row in rows]


async def rewrite_waiting(conn: asyncpg.Connection, events: Mapping[UUID, bytes]) -> int:
    """Give waiting conversions other events, which name nobody; how many are still there."""
    done = 0
    for conversion_id in sorted(events):
        done += _count(
            await conn.execute(
                "UPDATE conversions_waiting SET event = $2, external_id = NULL WHERE conversion_id = $1",
                conversion_id,
                events[conversion_id],
            )
        )
    return done


async def erase_contact(conn: asyncpg.Connection, contact_id: str) -> int:
    """Forget what is known of a contact; where later rows name it, it stays with what they say. Drains are shut out."""
    known = await conn.fetchval("SELECT true FROM contacts WHERE contact_id = $1 FOR UPDATE", contact_id)
    if not known:
        return 0
    await conn.execute("DELETE FROM contacts WHERE contact_id = $1", contact_id)
    await conn.execute(
        "INSERT INTO contacts (contact_id, first_seen_at, first_click_id)"
        " SELECT $1, min(at), (array_agg(click_id ORDER BY click_id) FILTER (WHERE click_id IS NOT NULL))[1] FROM ("
        "  (SELECT clicked_at AS at, click_id FROM clicks WHERE contact_id = $1 AND contact_id <> ''"
        "   AND length(contact_id) <= 256 ORDER BY click_id LIMIT 1)"
        "  UNION ALL (SELECT clicked_at, NULL FROM impressions WHERE contact_id = $1 AND contact_id <> ''"
        "   AND length(contact_id) <= 256 ORDER BY click_id LIMIT 1)"
        "  UNION ALL SELECT converted_at, NULL FROM conversions WHERE contact_id = $1 AND contact_id <> ''"
        "   AND length(contact_id) <= 256"
        " ) AS later HAVING count(*) > 0",
        contact_id,
    )
    return 1


async def renew_first_clicks(conn: asyncpg.Connection, contact_ids: Collection[str]) -> None:
    """Contacts whose earliest click is gone: the earliest that is left, or none. Drains are shut out."""
    if not contact_ids:
        return
    await conn.execute(
        "WITH held AS (SELECT contact_id FROM contacts WHERE contact_id = ANY($1)"
        ' ORDER BY contact_id COLLATE "C" FOR UPDATE)'
        " UPDATE contacts SET first_click_id = (SELECT click_id FROM clicks WHERE clicks.contact_id = contacts.contact_id"
        "  AND clicks.contact_id <> '' AND length(clicks.contact_id) <= 256 ORDER BY click_id LIMIT 1)"
        " FROM held WHERE contacts.contact_id = held.contact_id",
        sorted(contact_ids),
    )


async def contact_ids_after(conn: asyncpg.Connection, after: str, limit: int) -> list[str]:
    """Some of the contacts, in order from behind that one."""
    rows = await conn.fetch(
        "SELECT contact_id FROM contacts WHERE contact_id > $1 ORDER BY contact_id LIMIT $2", after, limit
    )
    return [row["contact_id"] for row in rows]


def _count(done: str) -> int:
    return int(done.rpartition(" ")[2])
