"""Clicks summed by value: what the clicks themselves add up to, whenever they come."""

from datetime import UTC, datetime, timedelta
from typing import Any

from storage.postgres.click_values import announce_day, sum_day
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.viewer import ADMIN
from storage.postgres.rollups import sum_days
from tests.postgres.drains import GOOGLEBOT, Bench

SUMMED = "click_values by aff_sub1"
EVER = datetime(1970, 1, 1, tzinfo=UTC)


async def ask(bench: Bench, dimensions: str = "aff_sub1") -> Report:
    """The report of today's and yesterday's clicks (for who works at midnight)."""
    now = datetime.now(UTC)
    asked = {"dimensions": dimensions, "from": str((now - timedelta(days=1)).date()), "to": str(now.date())}
    return await run_report(bench.conn, parse_query(list(asked.items()), ADMIN, now), ADMIN, now)


def figures(report: Report) -> list[Any]:
    """Its rows, in order."""
    return [(row.dimensions, row.metrics) for row in report.rows]


def is_summed(report: Report) -> bool:
    """Whether its clicks come out of click_values."""
    return any(SUMMED in line for line in report.plan)


async def store_clicks(bench: Bench, values: str, **fields: Any) -> list[bytes]:
    """A click of each value of aff_sub1, drained."""
    scribe = bench.scribe()
    ids = [scribe.click(params={"aff_sub1": value, "cost": "0.25"}, **fields) for value in values]
    for click_id in ids[::2]:
        scribe.convert(click_id)
    scribe.close()
    await bench.drain()
    return ids


async def test_summed_days_give_the_figures_of_the_clicks(embedded_bench: Bench) -> None:
    """Valid and other clicks, costs, conversions by sub id: the same out of the sums as out of the rows."""
    bench = embedded_bench
    await store_clicks(bench, "aabc")
    await store_clicks(bench, "ab", user_agent=GOOGLEBOT)
    by_rows = await ask(bench)
    assert not is_summed(by_rows)
    assert await sum_days(bench.conn, 5) > 0
    by_sums = await ask(bench)
    assert is_summed(by_sums)
    assert figures(by_sums) == figures(by_rows) != []
    assert by_sums.totals == by_rows.totals


async def test_a_late_click_takes_its_day_out_until_it_is_summed_again(embedded_bench: Bench) -> None:
    """It is in the figures at once."""
    bench = embedded_bench
    await store_clicks(bench, "aa")
    await sum_days(bench.conn, 5)
    await store_clicks(bench, "ab")
    assert {row.dimensions["aff_sub1"]: row.metrics["gross_clicks"] for row in (await ask(bench)).rows} == {
        "a": 3,
        "b": 1,
    }
    while await sum_days(bench.conn, 5):
        pass
    again = await ask(bench)
    assert is_summed(again)
    assert [row.metrics["gross_clicks"] for row in again.rows] == [3, 1]


async def test_a_click_in_the_midst_of_the_summing_makes_it_void(embedded_bench: Bench) -> None:
    """What was announced before the click came may not be called summed after it."""
    bench = embedded_bench
    await store_clicks(bench, "ab")
    day = await bench.value("SELECT max(clicked_at)::date FROM clicks")
    await announce_day(bench.conn, day)
    await store_clicks(bench, "a")
    assert not await sum_day(bench.conn, day)


async def test_values_that_hardly_repeat_are_not_summed(embedded_bench: Bench) -> None:
    """Sub ids of one click each: their sums would be as many rows; the report reads the clicks."""
    bench = embedded_bench
    scribe = bench.scribe()
    for number in range(1100):
        scribe.click(params={"aff_sub1": f"n{number}", "aff_sub2": "x"})
    await bench.drain()
    while await sum_days(bench.conn, 5):
        pass
    report = await ask(bench)
    assert (report.row_count, is_summed(report)) == (1100, False)
    assert any("click_values" in line for line in (await ask(bench, "aff_sub2")).plan)


async def test_a_copied_click_tells_what_the_click_does(embedded_bench: Bench) -> None:
    """Conversions have the same sub ids, places and extras whether their clicks were copied or not, or only some."""
    bench = embedded_bench
    await store_clicks(bench, "abcd")
    dimensions = "aff_sub1,extra.colour,os,language,list"
    before = await ask(bench, dimensions)
    assert await copy_converted_clicks(bench.conn, EVER, 1) == 1
    assert figures(await ask(bench, dimensions)) == figures(before)
    assert await copy_converted_clicks(bench.conn, EVER) == 1
    assert await copy_converted_clicks(bench.conn, EVER) == 0
    assert figures(await ask(bench, dimensions)) == figures(before)
    await bench.conn.execute("UPDATE converted_clicks SET aff_sub1 = 'copied'")
    assert "copied" in {row.dimensions["aff_sub1"] for row in (await ask(bench)).rows}
