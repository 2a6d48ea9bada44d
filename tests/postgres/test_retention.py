"""What has been kept long enough is taken away: days of clicks as partitions, rows of other tables in batches."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from edge.admin.catalog_apply import apply_text
from edge.admin.decisions import Decision, decide_each
from edge.admin.retention import Retention
from edge.counters import Counters, cell
from edge.tracking.click_id import ms_of
from storage.postgres.connection import Connection
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.viewer import ADMIN
from storage.postgres.retention import find_days
from storage.postgres.rollups import begin_rollups, pass_hours, sum_days
from tests.node import eventually
from tests.postgres.drains import CATALOG, Bench, now_ms
from tests.rollup_recount import rollup_differences

DAY_MS = 86_400_000
KEPT_S = 5 * 86400
"""So a click of eight days ago is too old, and one of three is not."""


def retention(kept_s: int = KEPT_S) -> Retention:
    """The job, without its pauses."""
    job = Retention(lambda: "", kept_s, Counters.private())
    job._pause_s = 0
    return job


def days_ago(days: float) -> int:
    """Unix milliseconds."""
    return now_ms() - int(days * DAY_MS)


async def store_days(bench: Bench, *days: float, clicks: int = 3) -> dict[float, list[bytes]]:
    """Clicks and a view of each of these days; the clicks' ids by day."""
    scribe = bench.scribe()
    stored = {}
    for day in sorted(days, reverse=True):
        fields: dict[str, Any] = {"ms": days_ago(day), "params": {"utm_campaign": "spring", "aff_sub1": "x"}}
        stored[day] = [scribe.click(**fields) for _ in range(clicks)]
        scribe.impression(ms=days_ago(day))
    await bench.drain()
    return stored


async def tables(bench: Bench) -> list[str]:
    """The days' tables that there are, attached or not."""
    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(clicks|impressions)_[0-9]{8}$' ORDER BY 1"
    return [row[0] for row in await bench.rows(query)]


def table_of(click_id: bytes, parent: str = "clicks") -> str:
    """Its day's table."""
    return f"{parent}_{datetime.fromtimestamp(ms_of(click_id) / 1000, UTC):%Y%m%d}"


async def test_old_days_are_dropped_and_nothing_else(bench: Bench) -> None:
    """K1: clicks and views of days before the retention go with their tables; the others and all sums stay."""
    stored = await store_days(bench, 9, 8, 3, 0)
    sums = await bench.rows("SELECT * FROM stats_hourly ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")
    job = retention()
    assert await job.retain(await bench.connect(), datetime.now(UTC))
    assert await bench.ids() == sorted(stored[3] + stored[0])
    left = await tables(bench)
    assert not {table_of(stored[day][0], parent) for day in (9, 8) for parent in ("clicks", "impressions")} & set(left)
    assert await bench.value("SELECT count(*) FROM impressions") == 2
    assert await bench.rows("SELECT * FROM stats_hourly ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11") == sums
    assert job._cells[cell("edge_retention_partitions_total", "clicks")] == 2
    assert job._cells[cell("edge_retention_done_seconds")] > now_ms() - 60_000
    assert await retention().retain(await bench.connect(), datetime.now(UTC)), "a second round finds nothing to do"
    assert await tables(bench) == left


async def test_a_transaction_that_reads_holds_up_only_the_drop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """K4: while a long export reads, the round gives up; clicks are stored and reports answered all the while (K1)."""
    monkeypatch.setattr("storage.postgres.retention.LOCK_TIMEOUT_MS", 300)
    stored = await store_days(bench, 9, 8, 0)
    reader, conn = await bench.connect(), await bench.connect()
    transaction = reader.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    assert await reader.fetchval("SELECT count(*) FROM clicks") == 9
    job = retention()
    round_ = asyncio.create_task(job.retain(conn, datetime.now(UTC)))
    await eventually(lambda: bench.value("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"), 20)
    async with asyncio.timeout(20):
        more = await store_days(bench, 0.01, 0)
        assert await bench.value("SELECT count(*) FROM clicks WHERE offer_id = 17") >= 9
    assert not await round_, "the reader is still there"
    assert await reader.fetchval("SELECT count(*) FROM clicks") == 9, "and sees what it saw"
    assert job._cells[cell("edge_retention_done_seconds")] == 0
    await transaction.rollback()
    assert await job.retain(conn, datetime.now(UTC))
    assert await bench.ids() == sorted(stored[0] + more[0.01] + more[0])
    assert await find_days(bench.conn, datetime.now(UTC).date() - timedelta(days=5)) == []


async def _cut_while_waiting(bench: Bench) -> None:
    """A detach whose session dies while it waits for a reader."""
    reader, doomed = await bench.connect(), await bench.connect()
    async with reader.transaction():
        await reader.fetchval("SELECT count(*) FROM clicks")
        pid = await doomed.fetchval("SELECT pg_backend_pid()")
        round_ = asyncio.create_task(retention().retain(doomed, datetime.now(UTC)))
        await eventually(lambda: bench.value("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"), 20)
        await bench.conn.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await round_


async def test_a_round_that_was_killed_is_finished_by_the_next(bench: Bench) -> None:
    """K2: killed while it waits, or between detaching and dropping: the next finds both, and nothing else is lost."""
    stored = await store_days(bench, 9, 8, 7, 3)
    await _cut_while_waiting(bench)
    await bench.conn.execute(f"ALTER TABLE impressions DETACH PARTITION {table_of(stored[8][0], 'impressions')}")
    left = await find_days(bench.conn, datetime.now(UTC).date() - timedelta(days=5))
    assert [day.state for day in left] == ["pending", "attached", "attached", "detached", "attached", "attached"]
    assert await retention().retain(await bench.connect(), datetime.now(UTC))
    assert await bench.ids() == sorted(stored[3])
    assert table_of(stored[8][0], "impressions") not in await tables(bench)
    assert await bench.value("SELECT count(*) FROM impressions") == 1


async def test_a_late_click_of_a_day_that_is_going_is_stored(bench: Bench) -> None:
    """Its day is half detached: the drain finishes that and attaches it again, then retention drops it with all."""
    stored = await store_days(bench, 9, 8)
    await _cut_while_waiting(bench)
    [late] = (await store_days(bench, 9, clicks=1))[9]
    assert await bench.ids() == sorted([late, *stored[9], *stored[8]])
    assert await retention().retain(await bench.connect(), datetime.now(UTC))
    assert await bench.ids() == []
    assert await bench.value("SELECT sum(gross_clicks) FROM stats_hourly") == 7


async def test_drain_and_reports_go_on_while_days_are_dropped(bench: Bench) -> None:
    """K1: COPY into today and reads over all days, all the time; no statement fails, and nothing of today is lost."""
    await store_days(bench, *range(6, 16))
    before = await tables(bench)
    scribe, written, reads = bench.scribe(), [], 0
    job, reader = retention(), await bench.connect()
    async with bench.station().running():
        round_ = asyncio.create_task(job.retain(await bench.connect(), datetime.now(UTC)))
        while not round_.done():
            written.append(scribe.click(ms=now_ms()))
            assert await reader.fetchval("SELECT count(*) FROM clicks WHERE utm_campaign <> 'x'") >= 0
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                assert await reader.fetchval("SELECT sum(gross_clicks) FROM stats_hourly") >= 30
                assert await reader.fetchval("SELECT count(*) FROM clicks JOIN impressions USING (offer_id)") >= 0
            reads += 1
        assert await round_
    assert reads > 3
    assert await bench.ids() == sorted(written)
    assert len(set(before) - set(await tables(bench))) == 20


async def test_one_node_at_a_time(bench: Bench) -> None:
    """K3: while another's session is at it, a round does nothing; when that session dies, its turn comes."""
    stored = await store_days(bench, 9)
    busy = await bench.connect()
    assert await busy.fetchval("SELECT pg_try_advisory_lock($1)", 0x436C69636B456472)
    assert not await retention().retain(await bench.connect(), datetime.now(UTC))
    assert await bench.ids() == sorted(stored[9])
    busy.terminate()
    conn = await bench.connect()
    await eventually(lambda: retention().retain(conn, datetime.now(UTC)), 20)
    assert await bench.ids() == []


async def test_a_table_of_somebody_else_is_left_alone(embedded_bench: Bench) -> None:
    """Only tables with our CHECK are ours, whatever they are called."""
    conn = embedded_bench.conn
    await conn.execute("CREATE TABLE clicks_20010101 AS SELECT 1 AS one; CREATE TABLE clicks_99999999 (LIKE clicks)")
    assert await retention().retain(await embedded_bench.connect(), datetime.now(UTC))
    assert await embedded_bench.value("SELECT count(*) FROM clicks_20010101") == 1
    assert await embedded_bench.value("SELECT count(*) FROM clicks_99999999") == 0


async def fill_the_rest(conn: Connection, age: timedelta) -> None:
    """A row of that age in each table that is emptied row by row."""
    at = datetime.now(UTC) - age
    old_id = UUID(int=int(at.timestamp() * 1000) << 80)
    await conn.execute(
        "INSERT INTO conversions_waiting (conversion_id, node_id, worker_id, id_ms, received_at, deadline, event, journal_id,"
        " decided_at) VALUES ($1, 0, 0, 0, $2, $2, 'sent', gen_random_uuid(), $2)", uuid4(), at,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO quarantine (journal_id, segment, byte_offset, error, raw, quarantined_at)"
        " VALUES (gen_random_uuid(), 1, 0, '', 'raw', $1)", at,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO conversions (conversion_id, converted_at, received_at, status, via, ip, payout)"
        " VALUES ($1, $2, $2, 'approved', 'postback', '203.0.113.9', 5)", uuid4(), at,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO imports (kind, file_name, started_at, examples) VALUES ('costs', 'costs.csv', $1, $2)", at, ["row 1"]
    )
    await conn.execute(
        "INSERT INTO idempotent_answers (key_id, idempotency_key, request_hash, answered_at, status)"
        " VALUES (1, $1, 'h', $2, 200)", uuid4().hex, at,
    )  # fmt: skip
    await conn.execute("INSERT INTO external_ids VALUES ($1, $2)", uuid4().hex, old_id)
    await conn.execute(
        "INSERT INTO converted_clicks (click_id, offer_id, clicked_at) VALUES ($1, 17, $2)", old_id, at
    )
    await conn.execute(
        "INSERT INTO click_values VALUES ($1, 1, 'spring', 'USD', 1, 1, 0, 0, 0, 0, 0)", at.date()
    )


REST = ("converted_clicks", "click_values", "conversions_waiting", "quarantine", "external_ids", "idempotent_answers")


async def test_old_rows_of_other_tables_go_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """K5: rows beside partitions, however many batches it takes; of conversions the address, of imports their examples."""
    for name in ("edge.admin.retention", "storage.postgres.retention"):
        monkeypatch.setattr(f"{name}.BATCH_ROWS", 1)
    monkeypatch.setattr("storage.postgres.retention.BATCH_PAGES", 1)
    for days in (400, 9, 8, 0):
        await fill_the_rest(bench.conn, timedelta(days=days))
    job = retention()
    assert await job.retain(await bench.connect(), datetime.now(UTC))
    assert {table: await bench.value(f"SELECT count(*) FROM {table}") for table in REST} == dict.fromkeys(REST, 1)
    query = "SELECT count(*), count(ip), sum(payout) FROM conversions"
    assert await bench.rows(query) == [(4, 1, Decimal(20))]
    assert await bench.value("SELECT count(*) FROM imports WHERE examples = '[]'") == 3
    counted = {table: job._cells[cell("edge_retention_rows_total", table)] for table in (*REST, "conversions.ip")}
    assert counted == dict.fromkeys(counted, 3)


async def test_the_first_rows_that_an_import_shows_go_with_its_examples(embedded_bench: Bench) -> None:
    """A run without a refused row has first rows all the same; what the columns were taken for stays."""
    plan = {"columns": {"contact_id": "Id"}, "rows": [{"contact_id": "c-1204"}]}
    for days in (9, 0):
        await embedded_bench.conn.execute(
            "INSERT INTO imports (kind, file_name, started_at, plan) VALUES ('contacts', 'c.csv', $1, $2)",
            datetime.now(UTC) - timedelta(days=days),
            plan,
        )
    assert await retention().retain(await embedded_bench.connect(), datetime.now(UTC))
    assert await embedded_bench.rows("SELECT plan ? 'columns', plan ? 'rows' FROM imports ORDER BY import_id") == [
        (True, False), (True, True),
    ]  # fmt: skip


async def test_rows_that_somebody_holds_wait_for_the_next_round(embedded_bench: Bench) -> None:
    """K5: nobody is waited for, so nobody can wait in a ring."""
    await fill_the_rest(embedded_bench.conn, timedelta(days=9))
    busy, conn = await embedded_bench.connect(), await embedded_bench.connect()
    async with busy.transaction():
        await busy.execute("SELECT FROM conversions FOR UPDATE; SELECT FROM quarantine FOR UPDATE")
        async with asyncio.timeout(20):
            await retention().retain(conn, datetime.now(UTC))
    assert await embedded_bench.value("SELECT count(ip) FROM conversions") == 1
    await retention().retain(conn, datetime.now(UTC))
    assert await embedded_bench.value("SELECT count(ip) FROM conversions") == 0
    assert await embedded_bench.value("SELECT count(*) FROM quarantine") == 0


async def test_a_day_that_is_held_keeps_its_sums(embedded_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads, so the day stays for now: a report by sub id counts it as before, and not none of it."""
    monkeypatch.setattr("storage.postgres.retention.LOCK_TIMEOUT_MS", 100)
    bench = embedded_bench
    await store_days(bench, 9, 8, 3, clicks=5)
    while await sum_days(bench.conn):
        pass
    reader = await bench.connect()
    async with reader.transaction():
        await reader.fetchval("SELECT count(*) FROM clicks")
        assert not await retention().retain(await bench.connect(), datetime.now(UTC))
        assert figures(await report(bench, "utm_campaign"))["spring"]["gross_clicks"] == 15
    assert await retention().retain(await bench.connect(), datetime.now(UTC))
    assert figures(await report(bench, "utm_campaign"))["spring"]["gross_clicks"] == 5


async def test_figures_of_roll_ups_stay(embedded_bench: Bench) -> None:
    """Reports by offer say the same before and after, in hours and in coarser sums; by sub id they say what is gone."""
    bench = embedded_bench
    stored = await store_days(bench, 9, 8, 3, clicks=5)
    scribe = bench.scribe()
    scribe.convert(stored[9][0], ms=days_ago(2))
    await bench.drain()
    await begin_rollups(bench.conn, "UTC", datetime.now(UTC))
    through = None
    while (passed := await pass_hours(bench.conn, datetime.now(UTC))) != through:
        through = passed
    assert through is not None
    while await sum_days(bench.conn):
        pass
    by_offer = await report(bench, "offer")
    before = await report(bench, "utm_campaign")
    assert (figures(before)["spring"]["gross_clicks"], before.notes) == (15, [])
    assert await retention().retain(await bench.connect(), datetime.now(UTC))
    assert figures(await report(bench, "offer")) == figures(by_offer)
    assert await rollup_differences(bench.conn) == []
    after = await report(bench, "utm_campaign")
    assert figures(after)["spring"]["gross_clicks"] == 5
    assert figures(after)[""]["conversions"] == 1, "the sale stays, though nobody knows its campaign any more"
    assert [note.partition(" are")[0].partition(" before")[0] for note in after.notes] == ["clicks and impressions", "clicks"]
    assert await report_notes(bench, "offer") == []
    async with bench.conn.transaction():
        await bench.conn.execute("DELETE FROM click_value_days")
    while await sum_days(bench.conn):
        pass
    assert figures(await report(bench, "utm_campaign")) == figures(after), "a day summed anew has no clicks"


async def test_a_window_that_outlasts_the_clicks_is_warned_of(embedded_bench: Bench) -> None:
    """`apply` says it, by what the job has last gone by; 400 days before it ever ran."""
    text = CATALOG.replace('payout = "5.00"\n', 'payout = "5.00"\nclick_window = "6d"\nimpression_window = "0"\n')
    assert (await apply_text(embedded_bench.conn, text, "test.toml")).warnings == []
    await retention().retain(await embedded_bench.connect(), datetime.now(UTC))
    text = text.replace('"6d"', '"7d"')
    [warning] = (await apply_text(embedded_bench.conn, text, "test.toml")).warnings
    assert warning.startswith("offers[17].click_window: is longer than EDGE_CLICK_RETENTION keeps clicks (5 days)")


async def report(bench: Bench, dimension: str) -> Report:
    """Clicks and conversions of the last twenty days, by one dimension."""
    now = datetime.now(UTC)
    asked = {
        "from": f"{now - timedelta(days=20):%Y-%m-%d}", "to": f"{now:%Y-%m-%d}", "dimensions": dimension,
        "metrics": "gross_clicks,conversions,payout",
    }  # fmt: skip
    return await run_report(bench.conn, parse_query(list(asked.items()), ADMIN, now), ADMIN, now)


async def report_notes(bench: Bench, dimension: str) -> list[str]:
    """What it says of itself."""
    return (await report(bench, dimension)).notes


def figures(found: Report) -> dict[Any, Any]:
    """Its rows by the dimension's value."""
    return {next(iter(row.dimensions.values())): row.metrics for row in found.rows}


async def test_a_sale_outlives_its_click(embedded_bench: Bench) -> None:
    """It keeps its money, and people can reverse it; a postback that names a click that is gone is unknown_click."""
    bench = embedded_bench
    stored = await store_days(bench, 9, 8)
    scribe = bench.scribe()
    known = scribe.convert(stored[9][0], ms=days_ago(2))
    await bench.drain()
    assert await retention().retain(await bench.connect(), datetime.now(UTC))
    late = [scribe.convert(stored[9][0], status="reversed"), scribe.convert(stored[8][0])]
    scribe.beat(now_ms())
    await bench.drain(conversion_wait_s=0)
    assert [await bench.verdict(one) for one in (known, *late)] == [("approved", ""), *[("rejected", "unknown_click")] * 2]
    assert await bench.value("SELECT sum(payout) FROM stats_hourly") == 5
    [decided] = await decide_each(bench.conn, [UUID(bytes=known)], Decision("reversed", "other"), "a person")
    assert (decided.problem, decided.status) == ("", "reversed")
    assert await bench.value("SELECT sum(payout) FROM stats_hourly") == 0
