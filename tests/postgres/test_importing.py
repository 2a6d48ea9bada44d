"""Clicks of another tracker, stored by the real importer: once, at their own time, without moving a number twice."""

import asyncio
from typing import Any
from uuid import UUID

from edge.drain.importing import ClickImporter, Imported
from edge.erasing import Order, erase
from edge.imports.click_rows import ForeignClick
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds, ms_of, node_of, worker_of
from edge.tracking.tombstones import Target
from storage.postgres.catalog import load_current
from tests.postgres.drains import CHROME, SECRET, Bench, Unleased, make_settings, now_ms
from tests.recount import differences

DAY_MS = 86_400_000


def foreign(transaction_id: str, ms: int, **fields: Any) -> ForeignClick:
    values: dict[str, Any] = {
        "offer_id": 17, "aff_id": 2, "landing_page_id": 0, "creative_id": 0, "contact_id": "", "ip": "203.0.113.7",
        "user_agent": CHROME, "referrer": "", "language": "", "country": "", "region": "", "city": "",
        "is_duplicate": False, "params": {},
    }  # fmt: skip
    return ForeignClick(transaction_id=transaction_id, ms=ms, **(values | fields))


async def importer(bench: Bench, **settings: Any) -> ClickImporter:
    """One as the command makes it."""
    revision, items = await load_current(bench.conn)
    catalog = Catalog.empty().changed(revision, items)
    return ClickImporter(make_settings(bench.data_dir, bench.url, **settings), catalog, "tune")


async def stored_ids(bench: Bench) -> dict[str, bytes]:
    rows = await bench.rows("SELECT transaction_id, click_id FROM external_ids JOIN clicks USING (click_id)")
    return {row[0]: row[1].bytes for row in rows}


async def test_an_imported_click_is_a_row_like_any_other(bench: Bench) -> None:
    """At its own millisecond, with an id that workers verify; the old id leads to it; roll-ups follow."""
    ms = now_ms() - 3 * DAY_MS
    click = foreign("102abc", ms, country="US", is_duplicate=True, params={"aff_sub1": "spring", "cost": "0.25"})
    assert await (await importer(bench)).store(bench.conn, [click]) == Imported(1, 0)
    click_id = (await stored_ids(bench))["102abc"]
    assert (ms_of(click_id), worker_of(click_id), node_of(click_id)) == (ms, 63, 0)
    assert ClickIds([SECRET], 5, 1, Unleased()).parse(click_id.hex()) == click_id
    row = await bench.conn.fetchrow("SELECT * FROM clicks WHERE click_id = $1", UUID(bytes=click_id))
    assert row is not None
    assert (row["aff_sub1"], row["country"], row["device_type"], row["flags"]) == ("spring", "US", "desktop", ["duplicate"])
    assert (row["outcome"], row["extras"]) == ("redirected", {"imported_from": "tune", "external_id": "102abc"})
    assert await bench.rows("SELECT gross_clicks, unique_clicks, cost::text FROM stats_hourly") == [(1, 0, "0.250000")]
    assert await differences(bench.conn) == []


async def test_the_same_file_again_changes_nothing(bench: Bench) -> None:
    """Neither rows nor ids nor roll-ups; what the file says twice is stored once, as it was said first."""
    ms = now_ms() - DAY_MS
    clicks = [foreign("a", ms, aff_id=2), foreign("b", ms), foreign("a", ms + 5, aff_id=3)]
    assert await (await importer(bench)).count(bench.conn, clicks) == Imported(2, 1)
    assert await (await importer(bench)).store(bench.conn, clicks) == Imported(2, 1)
    before = await bench.rows("TABLE clicks"), await bench.rows("TABLE stats_hourly"), await stored_ids(bench)
    assert ms_of(before[2]["a"]) == ms
    assert await (await importer(bench)).store(bench.conn, clicks) == Imported(0, 3)
    assert before == (await bench.rows("TABLE clicks"), await bench.rows("TABLE stats_hourly"), await stored_ids(bench))


async def test_many_clicks_of_one_second_all_get_ids_of_their_own(embedded_bench: Bench) -> None:
    """4096 fit a millisecond, the next take the next one; another import goes on where this one ended."""
    bench = embedded_bench
    ms = now_ms() // 1000 * 1000 - DAY_MS
    first = await importer(bench)
    await first.store(bench.conn, [foreign(f"a{n}", ms) for n in range(4000)])
    await first.store(bench.conn, [foreign(f"b{n}", ms) for n in range(1000)])
    await (await importer(bench)).store(bench.conn, [foreign(f"c{n}", ms) for n in range(4000)])
    ids = (await stored_ids(bench)).values()
    assert len(set(ids)) == 9000
    assert {ms_of(one) - ms for one in ids} == {0, 1, 2}
    assert await differences(bench.conn) == []


async def test_an_id_of_an_erased_click_is_nobodys_again(embedded_bench: Bench) -> None:
    """Its conversions, which stay, must not become those of somebody who clicked in the same second."""
    bench = embedded_bench
    ms = now_ms() // 1000 * 1000 - DAY_MS
    await (await importer(bench)).store(bench.conn, [foreign("a", ms), foreign("b", ms)])
    before = await stored_ids(bench)
    await erase(bench.conn, Order([Target("click", one) for one in before.values()], SECRET, "tester"))
    await (await importer(bench)).store(bench.conn, [foreign(name, ms) for name in "cde"])
    after = await stored_ids(bench)
    assert sorted(after) == ["c", "d", "e"]
    assert len({*before.values(), *after.values()}) == 5


async def test_imports_at_once_and_a_drain_beside_them_stay_apart(embedded_bench: Bench) -> None:
    """Two files with the same times and some of the same ids, while clicks of this hour are being drained."""
    bench = embedded_bench
    ms = now_ms() - 1000
    scribe, station = bench.scribe(), bench.station(batch_rows=20)
    for _ in range(300):
        scribe.click()
    files = [[foreign(f"id{n}", ms + n % 3) for n in range(start, start + 300)] for start in (0, 150)]

    ways = [(await importer(bench), await bench.connect()) for _ in files]

    async def read(clicks: list[ForeignClick]) -> int:
        one, conn = ways.pop()
        return sum([(await one.store(conn, clicks[at : at + 25])).stored for at in range(0, 300, 25)])

    stored = await asyncio.gather(*map(read, files), bench.drain(station))
    assert sum(stored[:2]) == 450
    assert len(await stored_ids(bench)) == 450
    assert await bench.value("SELECT count(*) FROM clicks") == 750
    assert await differences(bench.conn) == []


async def test_a_batch_that_fails_leaves_nothing_behind(embedded_bench: Bench) -> None:
    """A crash between the rows and the roll-ups: the next run stores all of it, once."""
    bench = embedded_bench
    clicks = [foreign(f"id{n}", now_ms() - DAY_MS) for n in range(10)]
    await bench.conn.execute("ALTER TABLE stats_hourly RENAME TO away")
    one = await importer(bench)
    failed = False
    try:
        await one.store(bench.conn, clicks)
    except Exception:
        failed = True
    assert failed
    await bench.conn.execute("ALTER TABLE away RENAME TO stats_hourly")
    assert await bench.value("SELECT (SELECT count(*) FROM clicks) + (SELECT count(*) FROM external_ids)") == 0
    assert await one.store(bench.conn, clicks) == Imported(10, 0)
    assert await differences(bench.conn) == []


async def test_a_partition_dropped_meanwhile_is_made_again(embedded_bench: Bench) -> None:
    """Retention may take a day away between two batches of a long import."""
    bench = embedded_bench
    one, ms = await importer(bench), now_ms() - 5 * DAY_MS
    await one.store(bench.conn, [foreign("a", ms)])
    name = await bench.value("SELECT tableoid::regclass::text FROM clicks")
    await bench.conn.execute(f"DROP TABLE {name}")
    assert await one.store(bench.conn, [foreign("b", ms)]) == Imported(1, 0)


async def test_clicks_paid_by_the_other_tracker_are_not_paid_again(embedded_bench: Bench) -> None:
    """A click of an offer that pays by the click is counted, and earns nothing here."""
    bench = embedded_bench
    await bench.apply(
        '[[offers]]\nid = 17\nadvertiser_id = 1\nname = "Flat"\nurl = "https://shop.example.com/"\n'
        'payout_type = "cpc"\npayout = "0.10"\nrevenue_type = "cpc"\nrevenue = "0.15"\n'
    )
    await (await importer(bench)).store(bench.conn, [foreign("a", now_ms() - DAY_MS)])
    assert await bench.rows("SELECT unique_clicks, payout::int, revenue::int FROM stats_hourly") == [(1, 0, 0)]
    assert await differences(bench.conn) == []


async def test_an_id_that_a_click_brought_here_itself_is_left_alone(embedded_bench: Bench) -> None:
    """The old ids share one table with those that clicks bring along."""
    bench = embedded_bench
    scribe = bench.scribe()
    own = scribe.click()
    await bench.drain()
    await bench.conn.execute("INSERT INTO external_ids VALUES ('taken', $1)", UUID(bytes=own))
    done = await (await importer(bench)).store(bench.conn, [foreign("taken", now_ms() - 5), foreign("free", now_ms() - 5)])
    assert done == Imported(1, 1)
    assert (await stored_ids(bench))["taken"] == own


async def test_ten_thousand_clicks_over_two_months_are_stored(embedded_bench: Bench) -> None:
    """Each day has its partition made; looking for free ids stays in the day it is about."""
    bench = embedded_bench
    one, begin_ms = await importer(bench), now_ms() - 60 * DAY_MS
    for batch in range(5):
        at_ms = begin_ms + batch * 12 * DAY_MS
        await one.store(bench.conn, [foreign(f"{batch}-{n}", at_ms + n * 500_000) for n in range(2000)])
    assert await differences(bench.conn) == []
