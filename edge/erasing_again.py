"""A database that is older than an erasure, restored from a backup: the erased values are found by their hashes, and erased.

Only hashes are known, so each value that is stored is hashed and looked for: contacts, the addresses of each day, and the
ids of those days of which clicks were erased.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from ipaddress import ip_network

from edge.erasing import Eraser, Order
from edge.tracking.tombstones import Target, Tombstone, Tombstones, click_hash
from storage.postgres import erasing as rows
from storage.postgres.connection import Connection
from storage.postgres.erasures import Erasure, add_erasures, shut_out_drains

ACTOR = "erased again"
PAGE = 10_000


async def erase_again(conn: Connection, missing: Sequence[Erasure], secrets: Sequence[str]) -> Counter[str]:
    """Erase what these name; rows by table. Outside a transaction."""
    async with conn.transaction():
        await shut_out_drains(conn)
        await add_erasures(conn, missing)
    found: dict[datetime, list[Target]] = {}
    async for target, until in _search(conn, missing, secrets):
        found.setdefault(until, []).append(target)
    counts: Counter[str] = Counter()
    for until, targets in found.items():
        eraser = Eraser(conn, Order(list(dict.fromkeys(targets)), secrets[0], ACTOR), until)
        await eraser.run()
        counts.update(eraser.counts)
    return counts


async def _search(
    conn: Connection, missing: Sequence[Erasure], secrets: Sequence[str]
) -> AsyncIterator[tuple[Target, datetime]]:
    by_ms = {int(row.until.timestamp() * 1000): row.until for row in missing}
    stones = Tombstones(
        secrets,
        (
            Tombstone("contact" if row.kind == "contact" else "ip", row.value_hash, row.prefix, int(row.until.timestamp() * 1000))
            for row in missing
            if row.kind != "click"
        ),
    )
    contacts, addresses = await rows.distinct_of_conversions(conn)
    async for contact_id in _contacts(conn, contacts):
        if until_ms := stones.contact_until_ms(contact_id):
            yield Target("contact", contact_id), by_ms[until_ms]
    if any(row.kind == "ip" for row in missing):
        async for address in _addresses(conn, addresses):
            if until_ms := stones.address_until_ms(address):
                yield Target("ip", ip_network(address)), by_ms[until_ms]
    hashes = {row.value_hash: row for row in missing if row.kind == "click"}
    for day in sorted({row.id_day for row in hashes.values() if row.id_day}):
        for table in rows.TOUCH_TABLES:
            for click_id in await rows.ids_of_day(conn, table, day):
                if known := hashes.get(click_hash(click_id.bytes)):
                    yield Target("click", click_id.bytes), known.until
        for click_id in await rows.clicks_of_conversions(conn, day):
            if known := hashes.get(click_hash(click_id.bytes)):
                yield Target("click", click_id.bytes), known.until


async def _contacts(conn: Connection, others: Sequence[str]) -> AsyncIterator[str]:
    for one in others:
        yield one
    after = ""
    while page := await rows.contact_ids_after(conn, after, PAGE):
        for one in page:
            yield one
        after = page[-1]


async def _addresses(conn: Connection, others: Sequence[str]) -> AsyncIterator[str]:
    for one in others:
        yield one
    for table in rows.TOUCH_TABLES:
        for day in await rows.partition_days(conn, table):
            for one in await rows.distinct_addresses(conn, table, day):
                yield one
