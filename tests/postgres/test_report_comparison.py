"""Figures beside those of the time before, and pages of a long report."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from storage.postgres.connection import Connection, connect
from storage.postgres.reports import report as reports
from storage.postgres.reports.freshness import Freshness
from storage.postgres.reports.labels import label_of
from storage.postgres.reports.planner import SOURCES
from storage.postgres.reports.query import QueryRefused, parse_query
from storage.postgres.reports.report import Report, ReportTooSlow, explain_report, run_report
from storage.postgres.reports.viewer import ADMIN

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
METRICS = "gross_clicks,conversions,revenue,cr,epc"


async def ask(conn: Connection, now: datetime = NOW, **parameters: Any) -> Report:
    given = {"metrics": METRICS, "currency": "USD", **parameters}
    pairs = [(name.removesuffix("_"), value) for name, value in given.items()]
    return await run_report(conn, parse_query(pairs, ADMIN, now), ADMIN, now)


def figures(report: Report) -> dict[Any, Any]:
    return {tuple(row.dimensions.values()): row.metrics for row in report.rows}


def days_later(row: dict[str, Any], days: int) -> tuple[Any, ...]:
    return tuple(value + timedelta(days=days) if isinstance(value, date) else value for value in row.values())


async def test_each_row_and_the_totals_stand_beside_the_period_before(month: Connection) -> None:
    """By day and partner: the same partner, the day of the same place; its change in percent, none of nothing."""
    week = await ask(
        month,
        from_="2026-10-20",
        to="2026-10-26",
        timezone="Europe/Berlin",
        dimensions="date,partner",
        compare="previous",
    )
    before = await ask(month, from_="2026-10-13", to="2026-10-19", timezone="Europe/Berlin", dimensions="date,partner")
    known = {days_later(row.dimensions, 7): row.metrics for row in before.rows}
    assert len(week.rows) > 15
    for row in week.rows:
        expected = known.get(tuple(row.dimensions.values()))
        if expected is None:
            expected = {"gross_clicks": 0, "conversions": 0, "revenue": 0, "cr": None, "epc": None}
        assert row.previous == expected
        assert row.change is not None
        for name, was in expected.items():
            now = row.metrics[name]
            if not was or now is None:
                assert row.change[name] is None
            else:
                assert row.change[name] == round((Decimal(now) / Decimal(was) - 1) * 100, 2) or was < 0
    assert week.totals.previous == before.totals.metrics


async def test_hours_stand_beside_the_same_hours_of_the_wall(month: Connection) -> None:
    """A day after the clocks changed beside the day on which they did."""
    asked: dict[str, Any] = {"timezone": "Europe/Berlin", "dimensions": "hour", "metrics": "gross_clicks"}
    monday = await ask(month, from_="2026-10-26", to="2026-10-26", compare="previous", **asked)
    sunday = await ask(month, from_="2026-10-25", to="2026-10-25", **asked)
    by_hour = {row.dimensions["hour"].strftime("%H"): row.metrics for row in sunday.rows}
    assert len(monday.rows) > 8
    assert [row.previous for row in monday.rows] == [
        by_hour.get(row.dimensions["hour"].strftime("%H"), {"gross_clicks": 0}) for row in monday.rows
    ]


async def test_a_period_that_is_not_over_is_compared_with_as_much_of_the_one_before(month: Connection) -> None:
    """At noon of the 15th, this month so far: the same days and hours of the period before, to the minute."""
    noon = datetime(2026, 10, 15, 10, 20, tzinfo=UTC)
    report = await ask(month, noon, from_="2026-10-12", to="2026-10-18", timezone="Europe/Berlin", compare="previous")
    assert report.previous_period
    assert report.previous_period.starts_at == datetime(2026, 10, 4, 22, tzinfo=UTC)
    assert report.previous_period.ends_at == datetime(2026, 10, 8, 10, 20, tzinfo=UTC)
    before = await ask(month, from_="2026-10-04T22:00:00Z", to="2026-10-08T10:20:00Z", timezone="Europe/Berlin")
    assert report.totals.previous == before.totals.metrics


async def test_one_currency_now_and_another_then_are_not_compared(month: Connection) -> None:
    """Euros of last week are no measure of dollars: both stand by themselves."""
    await month.execute("BEGIN")
    await month.execute("DELETE FROM stats_rollup_state")  # its days know nothing of the next change
    query = {"from_": "2026-10-20", "to": "2026-10-22", "metrics": "revenue", "currency": "", "offer": "19"}
    del query["currency"]
    pairs = [(name.removesuffix("_"), value) for name, value in query.items()] + [("compare", "previous")]
    await month.execute(
        "UPDATE stats_hourly SET currency = 'EUR' WHERE offer_id = 19 AND hour >= '2026-10-17' AND hour < '2026-10-20'"
    )
    try:
        found = await reports._run(month, parse_query(pairs, ADMIN, NOW), ADMIN, NOW, SOURCES)
    finally:
        await month.execute("ROLLBACK")
    assert found.totals.metrics == {"revenue": None}
    [dollars] = found.totals_by_currency
    assert (dollars.dimensions, dollars.previous) == ({"currency": "USD"}, {"revenue": 0})


async def test_pages_of_a_report_are_its_rows_in_order_each_once(month: Connection) -> None:
    """Sorted by any figure, whatever the size of the page; the totals of every page are those of all rows."""
    asked: dict[str, Any] = {
        "from_": "2026-10-01",
        "to": "2026-10-31",
        "dimensions": "offer,aff_sub1,country",
        "sort": "-epc",
    }
    whole = await ask(month, **asked)
    rows, cursor = [], ""
    while True:
        page = await ask(month, **asked, limit="7", cursor=cursor)
        rows += page.rows
        assert (page.totals, page.row_count) == (whole.totals, whole.row_count)
        if not page.next_cursor:
            break
        cursor = page.next_cursor
    assert rows == whole.rows
    values = [row.metrics["epc"] for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[: len(known)] == known, "what has none comes last"
    with pytest.raises(QueryRefused, match="another report"):
        await ask(month, **{**asked, "sort": "epc"}, cursor=cursor)


async def test_a_report_that_takes_too_long_is_given_up(month: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clear error, and the connection goes on."""
    monkeypatch.setattr(reports, "TIMEOUT_S", 0.001)
    with pytest.raises(ReportTooSlow, match="shorter period"):
        await ask(month, from_="2026-10-01", to="2026-10-31", dimensions="utm_source,city,contact", touch="linear")
    assert await month.fetchval("SELECT 1") == 1
    assert await month.fetchval("SHOW statement_timeout") == "0"


async def test_only_the_partitions_of_the_period_are_read(month: Connection) -> None:
    """Two days of clicks: two partitions, and no other."""
    query = parse_query(
        [("from", "2026-10-05"), ("to", "2026-10-06"), ("dimensions", "source"), ("metrics", "clicks")], ADMIN, NOW
    )
    plan = "\n".join(await explain_report(month, query, ADMIN))
    read = {name for name in plan.replace('"', " ").split() if name.startswith("clicks_2026")}
    assert read == {"clicks_20261005", "clicks_20261006"}


async def test_a_report_says_through_when_it_is_complete(database: str) -> None:
    """Of journals still written, the one furthest behind; of finished ones the last; of none, nothing."""
    conn = await connect(database)
    try:
        assert (await ask(conn)).freshness == Freshness(None, None)
        add = (
            "INSERT INTO journal_positions (journal_id, node_id, worker_id, segment, byte_offset, watermark_ms, finished_at)"
            " VALUES (gen_random_uuid(), 0, 0, 1, 0, $1, $2)"
        )
        ms = round(NOW.timestamp() * 1000)
        await conn.execute(add, ms - 9000, NOW)
        await conn.execute(add, ms - 60_000, NOW)
        assert (await ask(conn)).freshness == Freshness(NOW - timedelta(seconds=9), 9.0)
        await conn.execute(add, ms - 1500, None)
        await conn.execute(add, ms - 2500, None)
        assert (await ask(conn)).freshness == Freshness(NOW - timedelta(seconds=2.5), 2.5)
    finally:
        conn.terminate()


async def test_parts_of_offers_are_named_by_offer(month: Connection) -> None:
    """A page's id is its offer's own: with the offer beside it each has its name, alone only a name that all share."""
    both = await ask(month, from_="2026-10-01", to="2026-10-31", dimensions="offer,landing_page,creative,partner")
    assert both.labels["landing_page"] == {"17/1": "Page A", "19/1": "Page A"}
    assert both.labels["partner"] == {"2": "Deal Blog", "3": "Coupon Corner"}
    assert label_of(both.labels, {"offer": 17, "landing_page": 1}, "landing_page") == "Page A"
    alone = await ask(month, from_="2026-10-01", to="2026-10-31", dimensions="goal,creative")
    assert (alone.labels["goal"], alone.labels["creative"]) == ({"1": "lead"}, {"5": "Banner"})


async def test_a_report_says_when_the_rows_that_it_needs_are_gone(month: Connection) -> None:
    """Roll-ups outlive the clicks: what only rows know is said to be missing, not shown as nothing."""
    asked: dict[str, Any] = {"from_": "2026-09-20", "to": "2026-10-31", "dimensions": "source", "metrics": "clicks"}
    assert (await ask(month, **asked)).notes == []
    await month.execute("BEGIN")
    try:
        await month.execute(
            "DROP TABLE clicks_20260923, clicks_20260924, clicks_20260925, clicks_20260926, clicks_20260927"
        )
        await month.execute("DROP TABLE clicks_20260928, clicks_20260929, clicks_20260930")
        query = parse_query([(name.removesuffix("_"), value) for name, value in asked.items()], ADMIN, NOW)
        found = await reports._run(month, query, ADMIN, NOW, SOURCES)
    finally:
        await month.execute("ROLLBACK")
    assert found.notes[0].startswith("clicks and impressions before 2026-10-01 are kept by offer")
