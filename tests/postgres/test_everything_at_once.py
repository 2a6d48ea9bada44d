"""Drains, imports, people, closings, roll-ups and killed connections at once, by one seed: in the end everything adds up."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, get_args

import pytest

from edge.admin.decisions import Decision, decide_each
from edge.closing import close
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.drain.importing import ClickImporter
from edge.drain.sale_import import SaleImporter, Terms, by_fate
from edge.imports.click_rows import ForeignClick
from edge.imports.sale_rows import SaleRow
from edge.statements.finding import find_statements
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeReason, ChangeRefused, Wanted
from edge.tracking.status_codes import Status
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, is_retryable
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.months import reopen_month
from storage.postgres.reports.planner import SOURCES
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.sources import EARNED, HOURLY
from storage.postgres.reports.viewer import ADMIN
from storage.postgres.rollups import begin_rollups, forget_rollups, pass_hours, sum_days
from tests.cap_recount import cap_differences
from tests.postgres.drains import CHROME, Bench, Scribe, make_settings, now_ms, until
from tests.postgres.past import decide_in_the_past
from tests.postgres.test_random_changes import miscounted
from tests.postgres.test_replay import OFFERS, catalog_text
from tests.postgres.test_sale_import import sales, when
from tests.recount import contact_differences, differences
from tests.rollup_recount import rollup_differences

HOUR_MS = 3_600_000
SPAN_HOURS = 40
SECONDS = float(os.environ.get("CHAOS_S", "15"))
ZONES = ("UTC", "Europe/Berlin", "Atlantic/Azores", "Asia/Tokyo")
ROWS_ONLY = [source for source in SOURCES if source not in (HOURLY, EARNED)]
DIMENSIONS = (
    "date", "hour", "week", "advertiser", "offer", "partner", "goal", "country", "device", "currency", "aff_sub1",
    "utm_campaign", "landing_page", "contact", "status",
)  # fmt: skip
METRICS = "gross_clicks,unique_clicks,clicks,impressions,conversions,pending,rejected,reversed,amount,payout,revenue,cost,cr,epc"


class World:
    """What everybody does, by one seed."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.chance = random.Random(seed)
        self.clicks: list[bytes] = []
        self.sent: list[bytes] = []
        self.foreign: list[ForeignClick] = []
        self.files: list[list[SaleRow]] = []
        self.begins_ms = now_ms() - SPAN_HOURS * HOUR_MS
        self.stop = asyncio.Event()
        self.faults: list[str] = []
        self.reports = 0
        self.broken = 0

    def write(self, scribe: Scribe, ms: int, count: int) -> None:
        """Clicks, impressions and conversions in one journal, from that moment on."""
        chance = self.chance
        for number in range(count):
            at = ms + number * 20
            if not self.clicks or chance.random() < 0.4:
                params = {"aff_sub1": chance.choice("abc"), "utm_campaign": chance.choice("xy"), "cost": "0.01"}
                flags = chance.choice(([], [], [], ["prefetch"]))
                place = {"offer_id": chance.choice(OFFERS), "aff_id": chance.choice((2, 3))}
                contact_id = chance.choice(("", "ann", "bob"))
                session = scribe.session(ms=at, contact_id=contact_id, **place)
                late = chance.random() < 0.1
                self.clicks.append(session.click_id)
                if late:
                    self.convert(scribe, session.click_id, at)
                scribe.click(session, params=params, flags=flags)
            elif chance.random() < 0.2:
                scribe.impression(ms=at, offer_id=chance.choice(OFFERS))
            else:
                self.convert(scribe, chance.choice(self.clicks[-200:]), at)
        if chance.random() < 0.3:
            scribe.raw(b"\xc1 no event at all")

    def convert(self, scribe: Scribe, click_id: bytes, at: int) -> None:
        """A conversion with whatever an advertiser may send."""
        chance, params = self.chance, dict[str, Any]()
        if chance.random() < 0.8:
            params["amount"] = f"{chance.randrange(0, 20000) / 100}"
        if chance.random() < 0.3:
            params["status"] = chance.choice(get_args(Status))
        if chance.random() < 0.3:
            params["adv_unique1"] = chance.choice("abc")
        if chance.random() < 0.1:
            params["conversion_unique_id"] = f"order {chance.randrange(300)}"
        params["goal_id"] = chance.choice((0, 0, 1))
        params["security_token"] = "s3cret"
        self.sent.append(scribe.convert(click_id, ms=at, **params))

    def make_file(self) -> list[SaleRow]:
        """Sales of clicks that are here, that come later, of other systems, some twice."""
        chance = self.chance
        lines = []
        for _ in range(chance.randrange(20, 60)):
            ids = [one.hex() for one in chance.sample(self.clicks, 3)] + [
                one.transaction_id for one in self.foreign[-9:]
            ]
            order = f"file {chance.randrange(500)}" if chance.random() < 0.3 else ""
            at = when(now_ms() - chance.randrange(HOUR_MS))
            status = chance.choice(("", "approved", "pending", "rejected"))
            lines += [f"{chance.choice(ids)},{chance.randrange(1, 9999) / 100},{at},{order},{status}"] * chance.choice(
                (1, 1, 2)
            )
        return sales("click_id,amount,date,conversion_unique_id,status", *lines)

    async def retried(self, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        """On a connection of its own, again from the beginning after it was cut."""
        while True:
            conn = await self.bench.connect()
            try:
                return await work(conn)
            except Exception as error:
                if not is_retryable(error) or "deadlock" in str(error):
                    raise
                self.broken += 1
            finally:
                conn.terminate()

    async def journal(self, scribe: Scribe) -> None:
        """A worker whose clock runs through the hours."""
        ms = self.begins_ms
        while not self.stop.is_set():
            self.write(scribe, ms, 60)
            ms = min(ms + HOUR_MS * self.chance.randrange(4), now_ms())
            await asyncio.sleep(self.chance.uniform(0.02, 0.2))
        scribe.beat(now_ms() + 1000)

    async def take_in(self, conn: Connection, rows: list[SaleRow]) -> dict[str, int]:
        """A file, a batch after the other, as the command does."""
        importer = SaleImporter(make_settings(self.bench.data_dir, self.bench.url), Terms(1))
        await importer.begin(conn)
        sifted = [
            one for start in range(0, len(rows), 7) for one in await importer.store(conn, rows[start : start + 7])
        ]
        return dict(by_fate(sifted))

    async def import_files(self) -> None:
        """Each file by two at once; and other systems' clicks."""
        while not self.stop.is_set():
            await asyncio.sleep(0.1)
            await self.retried(self._import_clicks)
            if len(self.clicks) < 50:
                continue
            rows = self.make_file()
            self.files.append(rows)
            await asyncio.gather(*(self.retried(partial(self.take_in, rows=rows)) for _ in range(2)))

    async def _import_clicks(self, conn: Connection) -> None:
        revision, items = await load_current(conn)
        settings = make_settings(self.bench.data_dir, self.bench.url)
        clicks = [
            ForeignClick(
                f"foreign{len(self.foreign) + n}", self.begins_ms + self.chance.randrange(SPAN_HOURS) * HOUR_MS,
                self.chance.choice(OFFERS), 2, 0, 0, self.chance.choice(("", "cid")), "203.0.113.7", CHROME, "", "", "", "", "",
                False, {"aff_sub1": "a"},
            )
            for n in range(5)
        ]  # fmt: skip
        self.foreign += clicks
        await ClickImporter(settings, Catalog.empty().changed(revision, items), "tune").store(conn, clicks)

    async def decide(self) -> None:
        """People: one by one, and many in one transaction."""
        while not self.stop.is_set():
            await self.retried(self._decide)

    async def _decide(self, conn: Connection) -> None:
        history, chance = CatalogHistory(), self.chance
        rows = [row[0] for row in await conn.fetch("SELECT conversion_id FROM conversions ORDER BY random() LIMIT 40")]
        for one in rows[:15]:
            money = (Decimal(chance.randrange(9999)) / 100 if chance.random() < 0.4 else None for _ in range(3))
            wanted = Wanted(
                chance.choice(("", "approved", "rejected", "reversed")),
                chance.choice(get_args(ChangeReason)[1:]),
                *money,
            )
            try:
                await change_conversion(conn, history, one, wanted, actor="somebody")
            except ChangeRefused:
                pass
        async with conn.transaction():
            status: Any = chance.choice(("approved", "rejected", "reversed"))
            await decide_each(conn, rows[15:], Decision(status=status, reason="other"), "many")

    async def close_and_open(self, month: date) -> None:
        """The old month, its statements kept and given up."""

        async def work(conn: Connection) -> None:
            if not await reopen_month(conn, month):
                await close(conn, month, now=datetime.now(UTC), actor="somebody", force=True)

        while not self.stop.is_set():
            await self.retried(work)
            await asyncio.sleep(self.chance.uniform(0, 0.2))

    async def roll_up(self) -> None:
        """Hours are passed, days summed, clicks copied; now and then all anew in days of another zone."""
        chance = self.chance

        async def work(conn: Connection) -> None:
            if chance.random() < 0.15:
                await forget_rollups(conn)
                await begin_rollups(conn, chance.choice(ZONES), datetime.now(UTC))
            for _ in range(chance.randrange(6)):
                await pass_hours(conn, datetime.now(UTC) - timedelta(hours=chance.randrange(-2, SPAN_HOURS)))
            await sum_days(conn, chance.randrange(3))
            await copy_converted_clicks(conn, datetime.fromtimestamp(0, UTC), chance.randrange(1, 50))

        while not self.stop.is_set():
            await self.retried(work)
            await asyncio.sleep(chance.uniform(0, 0.1))

    async def cut(self) -> None:
        """Somebody's connection is gone, in the midst of whatever it does."""
        conn = await self.bench.connect()
        mine = [await one.fetchval("SELECT pg_backend_pid()") for one in (conn, self.bench.conn)]
        while not self.stop.is_set():
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> ALL($1) AND application_name <> 'reader' ORDER BY random() LIMIT 1) AS chosen",
                mine,
            )

    async def look(self) -> None:
        """Every snapshot adds up, and a report says the same whichever tables answer it."""
        conn = await self.bench.connect()
        await conn.execute("SET application_name = 'reader'")
        while not self.stop.is_set() and not self.faults:
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                self.faults += await rollup_differences(conn)
                for _ in range(6):
                    self.faults += await self._compare(conn)

    async def _compare(self, conn: Connection) -> list[str]:
        chance = self.chance
        since = datetime.fromtimestamp(self.begins_ms / 1000, UTC) + timedelta(hours=chance.randrange(-5, SPAN_HOURS))
        to = (since + timedelta(hours=chance.randrange(1, 60))).replace(minute=0, second=0, microsecond=0)
        since = since.replace(minute=chance.choice((0, 0, 0, 30)), second=0, microsecond=0)
        if chance.random() < 0.5:
            span = [("from", str(since.date())), ("to", str(to.date()))]
        else:
            span = [("from", since.isoformat()), ("to", to.isoformat())]
        names = chance.sample(DIMENSIONS, chance.choice((1, 1, 2, 3)))
        asked = [
            ("dimensions", ",".join(names)), ("metrics", METRICS), *span, ("limit", "1000"),
            ("timezone", chance.choice((*ZONES, "Asia/Kolkata"))), ("by", chance.choice(("conversion", "click"))),
        ]  # fmt: skip
        if chance.random() < 0.3:
            asked.append(chance.choice((("offer", "52"), ("partner", "2"), ("aff_sub1", ""), ("country", ""))))
        query = parse_query(asked, ADMIN, datetime.now(UTC), "UTC")
        fast, slow = [await run_report(conn, query, ADMIN, datetime.now(UTC), one) for one in (SOURCES, ROWS_ONLY)]
        self.reports += fast.plan != slow.plan
        return [] if _figures(fast) == _figures(slow) else [f"{asked}: {fast.plan}\n{_unlike(fast, slow)}"]


def _figures(report: Report) -> Any:
    rows = sorted((repr(row.dimensions), row.metrics) for row in report.rows)
    return rows if report.row_count <= 1000 else None, report.totals, report.totals_by_currency


def _unlike(fast: Report, slow: Report) -> str:
    pairs = ((_figures(one)[0] or [], other) for one, other in ((fast, "fast"), (slow, "slow")))
    found = {name: dict(rows) for rows, name in pairs}
    keys = sorted(found["fast"].keys() | found["slow"].keys())
    return (
        "\n".join(
            f"{key}: {found['fast'].get(key)} / {found['slow'].get(key)}"
            for key in keys
            if found["fast"].get(key) != found["slow"].get(key)
        )
        or f"{fast.totals} / {slow.totals}"
    )


async def statement_faults(bench: Bench) -> list[str]:
    """Partners whose statements of all months are not what the roll-ups say."""
    stated: dict[tuple[int, str], Decimal] = {}
    months = await bench.rows("SELECT DISTINCT date_trunc('month', hour, 'UTC')::date FROM stats_hourly ORDER BY 1")
    for (month,) in months:
        for one in await find_statements(bench.conn, month, "partner", now=datetime.now(UTC)):
            for part in one.parts:
                stated[one.id, part.currency] = stated.get((one.id, part.currency), Decimal(0)) + part.total_exact
    rows = await bench.rows("SELECT aff_id, currency, sum(payout) FROM stats_hourly WHERE aff_id <> 0 GROUP BY 1, 2")
    booked = {(row[0], row[1]): row[2] for row in rows}
    return [
        f"{key}: stated {stated.get(key)}, booked {booked.get(key)}"
        for key in stated.keys() | booked.keys()
        if stated.get(key, 0) != booked.get(key, 0)
    ]


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_whatever_happens_at_once_adds_up(embedded_bench: Bench) -> None:
    """Every snapshot while it goes on, and all recounts after it; files read again change nothing."""
    bench = embedded_bench
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    world, revision = World(bench, seed), await bench.apply(catalog_text())
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in range(2)]
    stations = [bench.station(slot=slot, drains=2, batch_rows=50) for slot in range(2)]
    world.write(scribes[0], world.begins_ms, 200)
    await bench.drain(stations[0])
    month = await decide_in_the_past(bench.conn, 40)
    async with stations[0].running(), stations[1].running():
        jobs = [world.journal(one) for one in scribes]
        jobs += [world.import_files(), world.decide(), world.decide(), world.close_and_open(month), world.roll_up()]
        jobs += [world.cut(), world.look()]
        tasks = [asyncio.create_task(job) for job in jobs]
        await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        world.stop.set()
        await asyncio.gather(*tasks)
        await until(lambda: is_all_stored(bench, scribes))
    for station in [*stations, stations[0]]:
        station.drain._stop.clear()
        station.drain._feeds.forget_all()
        await bench.drain(station)
    await settled(world, seed)


async def is_all_stored(bench: Bench, scribes: list[Scribe]) -> bool:
    return [await bench.position(one) for one in scribes] == [one.writer.appended for one in scribes]


STATE = (
    "SELECT count(*), count(DISTINCT conversion_id), sum(amount), sum(payout), max(change_id)"
    " FROM conversion_changes JOIN conversions USING (conversion_id)"
)


async def read_again(world: World) -> Counter[str]:
    """All files once more, each by itself; the fates of their rows."""
    fates = Counter[str]()
    for rows in world.files:
        fates.update(await world.take_in(world.bench.conn, rows))
    return fates


async def settled(world: World, seed: int) -> None:
    """Everything is recounted."""
    bench = world.bench
    assert not world.faults, f"seed {seed}\n" + "\n".join(world.faults[:10])
    assert await bench.value("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL") == 0
    ids = "SELECT conversion_id FROM conversions UNION ALL SELECT cause_id FROM conversion_changes WHERE cause_id IS NOT NULL"
    found = [one[0].bytes for one in await bench.rows(ids)]
    assert len(found) == len(set(found))
    assert set(world.sent) <= set(found), (
        f"seed {seed}: {len(set(world.sent) - set(found))} of {len(world.sent)} are lost"
    )
    for check in (differences, contact_differences, cap_differences):
        assert await check(bench.conn) == [], f"seed {seed}"
    assert await miscounted(bench) == [], f"seed {seed}"
    assert await statement_faults(bench) == [], f"seed {seed}"
    await read_again(world)  # once more: what was refused for want of its click may go in now
    before = await bench.rows(STATE)
    fates = await read_again(world)
    assert (fates.get("fresh", 0), await bench.rows(STATE)) == (0, before), f"seed {seed}: {fates}"
    assert await differences(bench.conn) == [], f"seed {seed}"
    assert world.reports > 20
