"""A person in every table, by real events where there are any; and a search of the whole database for what names them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from storage.journal.events import Click, encode
from storage.postgres.click_values import announce_day, sum_day
from storage.postgres.connection import Connection
from storage.postgres.contacts import ContactRow, upsert_contacts
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.idempotent_answers import KeptAnswer, keep_answer
from tests.postgres.drains import CATALOG, SECRET, Bench, Scribe, now_ms

WORD = "zzmark"
"""In everything that names the person."""
CONTACT = f"{WORD}-contact"
ADDRESS = "198.18.7.31"
MARKERS = (WORD, ADDRESS)
OTHER = "somebody else"
SECRETS = (SECRET,)
DAY_MS = 86_400_000
PAID = CATALOG.replace('name = "Deal Blog"', 'name = "Deal Blog"\npostback_url = "https://partner.example/pb?c={contact_id}"')


class Filled(NamedTuple):
    """The person's ids."""

    click: bytes
    impression: bytes
    conversion: bytes
    named_contact: bytes
    other_click: bytes


def person(scribe: Scribe, ms: int = 0) -> bytes:
    """A click of the person."""
    return scribe.click(
        ms=ms or now_ms(),
        contact_id=CONTACT,
        ip=ADDRESS,
        user_agent=f"{WORD}/1.0",
        params={"aff_sub1": f"{WORD}-sub", "colour": f"{WORD}-red", "ad_id": f"{WORD}-external", "contact_id": CONTACT},
    )


def order(scribe: Scribe, click_id: bytes, *, contact_id: str = "", unique: int = 1) -> bytes:
    """A sale of the person."""
    return scribe.convert(
        click_id,
        amount="49.90",
        adv_sub1=f"{WORD}-customer",
        adv_unique1=f"{WORD}-event",
        conversion_unique_id=f"{WORD}-order-{unique}",
        promo_code=f"{WORD}10",
        colour=f"{WORD}-blue",
        ip=ADDRESS,
        contact_id=contact_id,
    )


async def fill(bench: Bench) -> Filled:
    """Everything that can hold something of a person holds it, and something of somebody else."""
    await bench.apply(PAID)
    scribe = bench.scribe(worker=1, revision=2)
    yesterday = now_ms() - DAY_MS
    person(scribe, yesterday)
    scribe.click(ms=yesterday, contact_id=OTHER)
    impression = scribe.impression(contact_id=CONTACT, ip=ADDRESS, params={"aff_sub2": f"{WORD}-sub2"})
    click = person(scribe)
    other_click = scribe.click(contact_id=OTHER, ip="198.18.7.32")
    conversion = order(scribe, click)
    named = order(scribe, other_click, contact_id=CONTACT, unique=2)
    scribe.convert(other_click, amount="10.00", adv_sub1="kept")
    unknown = scribe.ids.mint(now_ms() + 5_000)
    scribe.convert(unknown, contact_id=CONTACT, adv_sub1=f"{WORD}-waits", ip=ADDRESS)
    scribe.raw(encode(["no event", CONTACT, ADDRESS]))
    scribe.raw(b"\x00 nobody in here")
    await bench.drain()
    await _by_hand(bench.conn, conversion)
    return Filled(click, impression, conversion, named, other_click)


async def _by_hand(conn: Connection, conversion: bytes) -> None:
    """What comes by other ways than a journal."""
    seen = datetime.now(UTC)
    await upsert_contacts(conn, [ContactRow(CONTACT, f"{WORD}-list", seen, extras={"mail": f"{WORD}@example.com"})])
    uuid = UUID(bytes=conversion)
    await change_conversion(conn, CatalogHistory(), uuid, Wanted("reversed", "fraud"), actor="t", note=f"{WORD} rang up")
    await conn.execute(
        "INSERT INTO postback_log (outbox_id, conversion_id, attempt, attempted_at, method, url, answer)"
        " SELECT outbox_id, conversion_id, 1, now(), 'GET', 'https://p.example/?c=' || $1, $1 FROM postback_outbox"
        " WHERE conversion_id = $2",
        CONTACT,
        uuid,
    )
    await copy_converted_clicks(conn, seen - timedelta(days=2))
    day = (seen - timedelta(days=1)).date()
    await announce_day(conn, day)
    await sum_day(conn, day)
    for name in (CONTACT, OTHER):
        examples = [{"line": 2, "fate": "rejected", "reason": "why", "row": {"contact_id": name}}]
        await conn.execute(
            "INSERT INTO imports (kind, file_name, state, examples) VALUES ('contacts', 'c.csv', 'done', $1)", examples
        )
        body = b'{"contact_id":"%s"}' % name.encode()
        await keep_answer(conn, 1, uuid4().hex, KeptAnswer(b"hash", 200, {}, body))
    await conn.execute("INSERT INTO api_keys (name, key_hash, scope) VALUES ('k', 'k', 'admin')")
    await conn.execute(
        "INSERT INTO saved_reports (key_id, name, query) SELECT key_id, 'mine', 'contact=' || $1 FROM api_keys"
        " UNION ALL SELECT key_id, 'theirs', 'contact=x' FROM api_keys",
        CONTACT,
    )


async def places_of(conn: Connection, markers: tuple[str, ...] = MARKERS) -> set[str]:
    """The tables in which a row holds one of the markers, as text or in bytes."""
    found = set()
    for (table,) in await conn.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    ):
        for marker in _written(markers):
            query = f"SELECT EXISTS (SELECT FROM {table} AS one WHERE position($1 IN lower(one::text)) > 0)"
            if await conn.fetchval(query, marker):
                found.add(table)
    return found


def _written(markers: tuple[str, ...]) -> Iterator[str]:
    for marker in markers:
        yield marker.lower()
        yield marker.encode().hex()


async def figures(conn: Connection) -> list[tuple[object, ...]]:
    """All roll-ups, and the money of conversions as statements have it."""
    key = "hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type"
    of_conversions = "click_id, offer_id, aff_id, goal_id, status, amount, payout, revenue, converted_at, country"
    of_changes = "conversion_id, booked_hour, kind, amount_delta, payout_delta, revenue_delta, conversions_delta"
    queries = (
        f"SELECT * FROM stats_hourly ORDER BY {key}, currency",
        f"SELECT conversion_id, {of_conversions} FROM conversions ORDER BY 1",
        f"SELECT change_id, {of_changes} FROM conversion_changes ORDER BY 1",
    )
    return [tuple(row) for query in queries for row in await conn.fetch(query)]


def click_payload(scribe: Scribe) -> bytes:
    """A click of the person as the journal holds it, not written yet."""
    session = scribe.session(contact_id=CONTACT, ip=ADDRESS)
    return encode(Click(session, "redirected", "", [], "", {"aff_sub1": f"{WORD}-sub"}, "", "", b""))
