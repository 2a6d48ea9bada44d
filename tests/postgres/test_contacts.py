"""Contacts: added by whatever names them, first seen in the earliest, once, however many write at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from edge.drain.importing import ClickImporter
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ms_of
from storage.postgres.catalog import load_current
from storage.postgres.contacts import ContactRow, Upserted, delete_contacts, find_deleted, upsert_contacts
from storage.postgres.migrations import read_migrations
from tests.postgres.drains import Bench, make_settings, now_ms
from tests.postgres.test_importing import foreign
from tests.recount import contact_differences, differences

HOUR_MS = 3_600_000
SEEN = "SELECT contact_id, first_seen_at, first_click_id FROM contacts ORDER BY contact_id"
SPRING = datetime(2026, 3, 1, tzinfo=UTC)


def at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


async def contacts(bench: Bench) -> list[dict[str, Any]]:
    return [dict(row) for row in await bench.conn.fetch("TABLE contacts ORDER BY contact_id")]


async def test_a_contact_is_first_seen_in_its_earliest_click(bench: Bench) -> None:
    """Also when a later click of another worker was drained before it; a view counts too, but is no first click."""
    early, late = bench.scribe(worker=0), bench.scribe(worker=1)
    start_ms = now_ms() - 3 * HOUR_MS
    second = late.click(ms=start_ms + HOUR_MS, contact_id="anna")
    await bench.drain()
    assert await bench.rows(SEEN) == [("anna", at(ms_of(second)), UUID(bytes=second))]
    shown = early.impression(ms=start_ms - HOUR_MS, contact_id="anna")
    first = early.click(ms=start_ms, contact_id="anna")
    early.click(ms=start_ms + 2 * HOUR_MS, contact_id="anna")
    await bench.drain()
    assert await bench.rows(SEEN) == [("anna", at(ms_of(shown)), UUID(bytes=first))]
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []


async def test_a_conversion_alone_makes_a_contact(bench: Bench) -> None:
    """Refused for want of a click, it still says who converted; a click that comes later is the first click."""
    scribe, late = bench.scribe(worker=0), bench.scribe(worker=1)
    session = late.session(contact_id="c-2")
    scribe.convert(session.click_id, contact_id="c-1")
    await bench.drain(conversion_wait_s=0)
    await bench.conn.execute("UPDATE conversions_waiting SET deadline = now()")
    await bench.drain()
    assert [row["contact_id"] for row in await contacts(bench)] == ["c-1"]
    late.click(session)
    await bench.drain()
    assert [row["contact_id"] for row in await contacts(bench)] == ["c-1", "c-2"]
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []


async def test_a_name_too_long_for_an_index_makes_no_contact(bench: Bench) -> None:
    """The click is stored with all of it; 256 characters, of whatever alphabet, still do."""
    scribe = bench.scribe()
    for name in ("x" * 257, "ü" * 256, ""):
        scribe.click(contact_id=name)
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM clicks") == 3
    assert [row["contact_id"] for row in await contacts(bench)] == ["ü" * 256]
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []


async def test_a_batch_that_is_taken_back_leaves_no_contact(embedded_bench: Bench) -> None:
    """Contacts are of the rows' own transaction: where the roll-ups cannot be written, there is neither."""
    bench = embedded_bench
    bench.scribe().click(contact_id="anna")
    await bench.conn.execute("ALTER TABLE stats_hourly RENAME TO away")
    failed = False
    try:
        await bench.drain()
    except Exception:
        failed = True
    await bench.conn.execute("ALTER TABLE away RENAME TO stats_hourly")
    assert failed
    assert await contacts(bench) == []
    await bench.drain()
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []
    assert [row["contact_id"] for row in await contacts(bench)] == ["anna"]


async def test_a_click_that_cannot_be_stored_makes_no_contact(embedded_bench: Bench) -> None:
    """What is quarantined names nobody."""
    bench = embedded_bench
    scribe = bench.scribe()
    scribe.click(contact_id="bad", offer_id=1 << 40)
    scribe.click(contact_id="good")
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM quarantine") == 1
    assert [row["contact_id"] for row in await contacts(bench)] == ["good"]
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []


async def test_drains_and_imports_at_once_add_each_contact_once(embedded_bench: Bench) -> None:
    """Four drains, an import of clicks and one of contacts write the same few people in any order: none waits in a ring."""
    bench, random = embedded_bench, Random(5)
    people = [f"p{n}" for n in range(40)]
    start_ms = now_ms() - 24 * HOUR_MS
    for worker in range(4):
        scribe = bench.scribe(worker=worker)
        for ms in sorted(random.randrange(start_ms, start_ms + 20 * HOUR_MS) for _ in range(100)):
            click = scribe.click(ms=ms, contact_id=random.choice(people))
            if random.random() < 0.3:
                scribe.convert(click, ms=ms + 1000, contact_id=random.choice(people))
    stations = [bench.station(slot=slot, drains=4, batch_rows=15) for slot in range(4)]
    conns = [await bench.connect() for _ in range(6)]
    revision, items = await load_current(bench.conn)
    catalog = Catalog.empty().changed(revision, items)
    importer = ClickImporter(make_settings(bench.data_dir, bench.url), catalog, "tune")

    async def import_clicks() -> None:
        for batch in range(5):
            clicks = [foreign(f"{batch}-{n}", start_ms + n, contact_id=random.choice(people)) for n in range(20)]
            await importer.store(conns[4], clicks)

    async def import_contacts() -> None:
        for _ in range(12):
            some = random.sample(people, 20)
            await upsert_contacts(conns[5], [ContactRow(one, "news", SPRING, extras={"sends": 3}) for one in some])

    async def drain(slot: int) -> None:
        await stations[slot].turn(conns[slot])

    await asyncio.gather(import_clicks(), import_contacts(), *map(drain, range(4)))
    assert await bench.value("SELECT count(*) FROM clicks") == 500
    assert await bench.value("SELECT count(*) FROM contacts") == len(people)
    assert await differences(bench.conn) == await contact_differences(bench.conn) == []


async def test_what_is_said_of_a_contact_again_wins(bench: Bench) -> None:
    """Its list, sign-up and extras; what is not said stays, and it is first seen as early as anybody says."""
    conn, later = bench.conn, SPRING + timedelta(days=9)
    first, second = UUID(int=1 << 100), UUID(int=2 << 100)
    row = ContactRow("anna", "news", SPRING, SPRING, second, {"sends": 1, "city": "Ulm"})
    assert await upsert_contacts(conn, [row, ContactRow("ben")]) == Upserted(2, 0)
    assert await upsert_contacts(conn, [row, ContactRow("ben")]) == Upserted(0, 0)
    assert await upsert_contacts(conn, [ContactRow("anna", "", None, later, first, {"sends": 2})]) == Upserted(0, 1)
    assert await upsert_contacts(conn, [ContactRow("ben", "vip", later, SPRING)]) == Upserted(0, 1)
    assert await upsert_contacts(conn, [ContactRow("ben", "news", SPRING, later), ContactRow("ben", "new")]) == Upserted(0, 1)
    anna, ben = await contacts(bench)
    assert (anna["list"], anna["signed_up_at"], anna["first_seen_at"], anna["first_click_id"]) == (
        "news", SPRING, SPRING, first,
    )  # fmt: skip
    assert anna["extras"] == {"sends": 2, "city": "Ulm"}
    assert (ben["list"], ben["signed_up_at"], ben["first_seen_at"]) == ("new", SPRING, SPRING)
    assert [one["joined_at"] for one in (anna, ben)] == [SPRING, SPRING]
    assert await upsert_contacts(conn, []) == Upserted(0, 0)


async def test_a_deleted_contact_stays_deleted(bench: Bench) -> None:
    """Whoever clicks or is imported again; deleting again, or nobody, changes nothing."""
    await upsert_contacts(bench.conn, [ContactRow("anna"), ContactRow("ben")])
    assert await delete_contacts(bench.conn, ["anna", "nobody"], SPRING) == 1
    assert await delete_contacts(bench.conn, ["anna"], SPRING + timedelta(days=1)) == 0
    bench.scribe().click(contact_id="anna")
    await bench.drain()
    await upsert_contacts(bench.conn, [ContactRow("anna", "vip")])
    assert await bench.value("SELECT deleted_at FROM contacts WHERE contact_id = 'anna'") == SPRING
    assert await find_deleted(bench.conn, ["anna", "ben", "nobody"]) == {"anna"}
    assert await find_deleted(bench.conn, []) == set()


async def test_rows_that_were_there_before_contacts_were_kept_name_theirs(embedded_bench: Bench) -> None:
    """The migration adds whom older clicks, views and conversions name, as the drain would have."""
    bench, random = embedded_bench, Random(3)
    scribe, start_ms = bench.scribe(), now_ms() - 48 * HOUR_MS
    for ms in sorted(random.randrange(start_ms, start_ms + 40 * HOUR_MS) for _ in range(60)):
        touch = random.choice((scribe.click, scribe.impression))(ms=ms, contact_id=random.choice("abcde"))
        if random.random() < 0.3:
            scribe.convert(touch, ms=ms, contact_id=random.choice("aefg"))
    await bench.drain()
    before = await bench.rows(SEEN)
    assert len(before) >= 6
    await bench.conn.execute("DELETE FROM contacts WHERE contact_id <> 'a'")
    await bench.conn.execute("UPDATE contacts SET first_seen_at = now(), first_click_id = NULL")
    await bench.conn.execute(_backfill())
    assert await bench.rows(SEEN) == before


def _backfill() -> str:
    sql = next(one.sql for one in read_migrations() if one.name == "contacts")
    return sql[sql.index("INSERT INTO contacts") :]
