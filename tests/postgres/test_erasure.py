"""`erase` on everything that can name a person: what goes, what stays, and what a journal cannot bring back."""

import asyncio
from uuid import UUID

import pytest

from edge.erasing import Order, count, erase
from edge.tracking.tombstones import Target, address_target, contact_target
from tests.postgres import erased_people as people
from tests.postgres.drains import SECRET, Bench, until

CONTACT = contact_target(people.CONTACT)
ADDRESS = address_target(people.ADDRESS)
BOTH = (CONTACT, ADDRESS)
KEPT = {"journal_positions", "schema_migrations"}


def order_of(*targets: Target) -> Order:
    """An order of the tests' own."""
    return Order(list(targets), SECRET, "tester")


async def test_nothing_that_names_an_erased_person_is_left_anywhere(embedded_bench: Bench) -> None:
    """Each column of each table is searched; figures, and everybody else, are as they were."""
    bench = embedded_bench
    filled = await people.fill(bench)
    before = await people.figures(bench.conn)
    assert await people.places_of(bench.conn) >= {
        "clicks", "impressions", "conversions", "conversion_keys", "conversion_changes", "conversions_waiting",
        "contacts", "converted_clicks", "external_ids", "quarantine", "postback_log", "imports", "idempotent_answers",
        "saved_reports",
    }  # fmt: skip
    report = await erase(bench.conn, order_of(*BOTH))
    assert await people.places_of(bench.conn) == set()
    assert await people.figures(bench.conn) == before
    assert (report.rows["clicks"], report.rows["impressions"], report.rows["conversions"]) == (2, 1, 2)
    assert await bench.value("SELECT count(*) FROM clicks") == 2
    assert await bench.value("SELECT count(*) FROM conversions WHERE adv_sub1 = 'kept' AND erased_at IS NULL") == 1
    assert await bench.value("SELECT count(*) FROM imports WHERE examples <> '[]'") == 1
    assert await bench.value("SELECT count(*) FROM quarantine WHERE raw <> ''") == 1
    assert await bench.value("SELECT count(*) FROM saved_reports") == 1
    assert await bench.value("SELECT transaction_id FROM conversions WHERE click_id = $1", UUID(bytes=filled.click)) == (
        filled.click.hex()
    )


async def test_erasing_again_changes_nothing_and_a_dry_run_never_does(embedded_bench: Bench) -> None:
    """A dry run counts what the run then does; the second run finds nothing."""
    bench = embedded_bench
    await people.fill(bench)
    where = await people.places_of(bench.conn)
    counted = await count(bench.conn, order_of(*BOTH))
    assert await people.places_of(bench.conn) == where
    assert await bench.value("SELECT count(*) FROM erasures") == 0
    assert (await erase(bench.conn, order_of(*BOTH))).rows == counted.rows
    assert (await erase(bench.conn, order_of(*BOTH))).rows == {}


async def test_what_an_import_showed_of_its_first_rows_names_no_erased_person(embedded_bench: Bench) -> None:
    """They are kept to show what its columns were taken for; of a run that was killed too, which says that it runs."""
    bench = embedded_bench
    for contact in (people.CONTACT, people.OTHER):
        plan = {"columns": {"contact_id": "Id"}, "rows": [{"contact_id": "c-1"}, {"contact_id": contact}]}
        for state in ("done", "running"):
            await bench.conn.execute(
                "INSERT INTO imports (kind, file_name, state, plan) VALUES ('contacts', 'c.csv', $1, $2)", state, plan
            )
    counted = await count(bench.conn, order_of(CONTACT))
    report = await erase(bench.conn, order_of(CONTACT))
    assert (counted.rows, report.rows) == ({"imports": 2}, {"imports": 2})
    assert await people.places_of(bench.conn, (people.CONTACT,)) == set()
    assert await bench.rows("SELECT plan ? 'columns', plan ? 'rows', count(*) FROM imports GROUP BY 1, 2 ORDER BY 2") == [
        (True, False, 2), (True, True, 2),
    ]  # fmt: skip


async def test_a_run_that_is_killed_half_way_is_finished_by_the_next(embedded_bench: Bench) -> None:
    """After each of its batches in turn: the next run leaves what one whole run leaves."""
    bench = embedded_bench
    await people.fill(bench)
    for die_after in (1, 1, 2, 2):
        dying = await bench.connect()

        def die(table: str, number: int, left: list[int] = [die_after], conn: object = dying) -> None:  # noqa: B006
            left[0] -= 1
            if not left[0]:
                conn.terminate()  # type: ignore[attr-defined]

        with pytest.raises(Exception, match=r"closed|underlying|progress"):
            await erase(dying, order_of(*BOTH), die)
    await erase(bench.conn, order_of(*BOTH))
    assert await people.places_of(bench.conn) == set()


async def test_what_a_journal_still_holds_of_an_erased_person_is_counted_and_not_stored(embedded_bench: Bench) -> None:
    """Drained after the erasure; the figures are those of somebody who was not erased."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    click = people.person(scribe)
    sale = people.order(scribe, click)
    scribe.impression(contact_id=people.CONTACT, ip=people.ADDRESS)
    await erase(bench.conn, order_of(CONTACT))
    station = bench.station()
    await bench.drain(station)
    assert await people.places_of(bench.conn, (people.WORD,)) == set()
    assert await bench.verdict(sale) == ("approved", "")
    assert await bench.rows("SELECT sum(gross_clicks), sum(impressions), sum(conversions) FROM stats_hourly") == [(1, 1, 1)]
    assert await bench.rows("SELECT count(*) FROM clicks UNION ALL SELECT count(*) FROM impressions") == [(0,), (0,)]
    counted = [value for labels, value in _counts(station) if value]
    assert counted == [1, 1, 1]


async def test_a_journal_drained_once_more_brings_nobody_back(embedded_bench: Bench) -> None:
    """Its position is set back to its beginning, as in a database restored from a backup; the erasure came between."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    click = people.person(scribe)
    people.order(scribe, click)
    scribe.click(contact_id=people.OTHER)
    await bench.drain()
    await erase(bench.conn, order_of(*BOTH))
    await bench.conn.execute(
        "UPDATE journal_positions SET segment = 1, byte_offset = 0;"
        " TRUNCATE clicks, conversions, conversion_keys, conversion_changes, stats_hourly, stats_rollups, contacts"
    )
    await bench.drain()
    assert await people.places_of(bench.conn) == set()
    assert await bench.value("SELECT count(*) FROM clicks") == 1
    assert await bench.rows("SELECT sum(gross_clicks), sum(conversions) FROM stats_hourly") == [(2, 1)]
    assert await bench.value("SELECT array_agg(contact_id) FROM contacts") == [people.OTHER]
    assert await bench.position(scribe) == scribe.written[-1].end


async def test_what_an_erased_person_does_later_is_new(embedded_bench: Bench) -> None:
    """The same contact clicks and buys again: stored, named, credited."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    people.person(scribe)
    await bench.drain()
    report = await erase(bench.conn, order_of(*BOTH))
    later = int(report.until.timestamp() * 1000) + 1000
    again = people.person(scribe, later)
    sale = scribe.convert(again, ms=later + 1)
    await bench.drain()
    assert await bench.ids() == [again]
    assert await bench.verdict(sale) == ("approved", "")
    assert await bench.rows("SELECT contact_id, first_click_id FROM contacts") == [(people.CONTACT, UUID(bytes=again))]


async def test_a_session_that_a_worker_still_held_brings_no_erased_click_back(embedded_bench: Bench) -> None:
    """A later postback carries it: the conversion is of an unknown click, as one without the session is."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    click = people.person(scribe)
    await bench.drain()
    report = await erase(bench.conn, order_of(CONTACT))
    later = int(report.until.timestamp() * 1000) + 1000
    scribe.beat(later)
    sale = scribe.convert(click, ms=later, session=scribe.sessions[click])
    await bench.drain()
    assert await bench.verdict(sale) == ("rejected", "unknown_click")
    assert await people.places_of(bench.conn) == set()


async def test_an_order_sent_again_after_its_erasure_is_still_a_duplicate(embedded_bench: Bench) -> None:
    """The key that holds its number is kept as a hash, which the same number meets."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    people.order(scribe, people.person(scribe))
    await bench.drain()
    report = await erase(bench.conn, order_of(CONTACT))
    other = scribe.click(contact_id=people.OTHER)
    again = scribe.convert(other, ms=int(report.until.timestamp() * 1000) + 1000, conversion_unique_id=f"{people.WORD}-order-1")
    await bench.drain()
    assert await bench.verdict(again) == ("rejected", "duplicate")


async def test_a_drain_in_the_middle_of_a_batch_is_waited_for_and_its_rows_are_found(embedded_bench: Bench) -> None:
    """The erasure begins while the click's transaction is open: it ends after it, and takes the click."""
    bench = embedded_bench
    await _race(bench)
    assert await people.places_of(bench.conn) == set()


async def _race(bench: Bench) -> None:
    scribe, station = bench.scribe(worker=1), bench.station()
    people.order(scribe, people.person(scribe))
    blocker, eraser = await bench.connect(), await bench.connect()
    held = blocker.transaction()
    await held.start()
    await blocker.execute("LOCK TABLE contacts IN EXCLUSIVE MODE")  # which the batch comes to after its clicks
    draining = asyncio.create_task(bench.drain(station))
    await until(lambda: bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'contacts'::regclass"))
    erasing = asyncio.create_task(erase(eraser, order_of(*BOTH)))
    await until(lambda: bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"))
    await held.rollback()
    await asyncio.gather(draining, erasing)


async def test_an_erased_address_takes_its_whole_network_and_nobody_beside_it(embedded_bench: Bench) -> None:
    """Clicks of the network go, at once and from the journal; those of the next one stay."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    scribe.click(ip="203.0.113.1", contact_id="a")
    kept = scribe.click(ip="203.0.114.1", contact_id="a")
    await bench.drain()
    scribe.click(ip="203.0.113.200")
    scribe.click(ip="2001:db8::1")
    await erase(bench.conn, order_of(address_target("203.0.113.0/24"), address_target("2001:db8::/32")))
    await bench.drain()
    assert await bench.ids() == [kept]
    assert await bench.rows("SELECT first_click_id FROM contacts") == [(UUID(bytes=kept),)]


async def test_one_click_is_erased_and_its_persons_others_stay(embedded_bench: Bench) -> None:
    """By its id, with what hangs on it."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    first, second = people.person(scribe), people.person(scribe)
    sale = people.order(scribe, first)
    await bench.drain()
    await erase(bench.conn, order_of(Target("click", first)))
    assert await bench.ids() == [second]
    assert await bench.rows("SELECT conversion_id, contact_id, ip FROM conversions") == [(UUID(bytes=sale), "", None)]
    assert await bench.value("SELECT first_click_id FROM contacts") == UUID(bytes=second)


async def test_a_database_older_than_an_erasure_is_erased_again(embedded_bench: Bench) -> None:
    """The data dir's file knows; the drain puts it right before it stores anything."""
    bench = embedded_bench
    await people.fill(bench)
    await bench.conn.execute("CREATE TABLE kept AS SELECT * FROM clicks; CREATE TABLE people AS SELECT * FROM contacts")
    await erase(bench.conn, order_of(*BOTH))
    async with bench.station().running():
        await until(lambda: _has_lines(bench))
        await until(lambda: bench.value("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'clickedge drain%'"))
    await bench.conn.execute(
        "DELETE FROM erasures; TRUNCATE clicks, contacts; INSERT INTO clicks SELECT * FROM kept;"
        " INSERT INTO contacts (contact_id, list, first_seen_at) SELECT contact_id, list, first_seen_at FROM people;"
        " DROP TABLE kept, people"
    )
    assert await people.places_of(bench.conn) != set()
    async with bench.station().running():
        await until(lambda: bench.value("SELECT count(*) > 1 FROM erasures"))
        await until(lambda: bench.value("SELECT count(*) = 0 FROM contacts WHERE contact_id = $1", people.CONTACT))
    assert await people.places_of(bench.conn) == set()
    assert await bench.value("SELECT count(*) FROM clicks") == 2


async def _has_lines(bench: Bench) -> bool:
    file = bench.data_dir / "erasures"
    return file.exists() and file.read_text().count("\n") >= 2


def _counts(station: object) -> list[tuple[tuple[str, ...], int]]:
    from edge.counters import cell

    kinds = ("click", "impression", "conversion")
    cells = station.counters.cells  # type: ignore[attr-defined]
    return [((kind,), cells[cell("edge_events_erased_total", kind)]) for kind in kinds]
