"""Conversions of files, stored by the real importer over what real postbacks brought: each once, and the figures agree."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from edge.drain.sale_import import SaleImporter, Terms, by_fate
from edge.imports.columns import find_columns
from edge.imports.sale_rows import SaleRow, read_sale
from edge.imports.values import Calendar
from tests.postgres.drains import Bench, make_settings, now_ms
from tests.recount import differences

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
CALENDAR = Calendar(ZoneInfo("UTC"))
NEW = """
[[offers]]
id = 18
advertiser_id = 2
name = "Every sale"
url = "https://shop.example.com/"
duplicates = "new"
payout_type = "cpa_percentage"
payout_percent = "10"
revenue_type = "cpa_percentage"
revenue_percent = "20"
[[offers]]
id = 19
advertiser_id = 1
name = "Adds up"
url = "https://shop.example.com/"
duplicates = "increment"
payout_type = "cpa_percentage"
payout_percent = "10"
"""


def when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sales(header: str, *lines: str) -> list[SaleRow]:
    """The rows of such a file."""
    columns = find_columns("conversions", header.split(","), {}, {})
    return [read_sale(number, line.split(","), columns, CALENDAR, "") for number, line in enumerate(lines, 2)]


async def importer(bench: Bench, **terms: Any) -> SaleImporter:
    """One as the command makes it, its run begun."""
    one = SaleImporter(make_settings(bench.data_dir, bench.url), Terms(1, **terms))
    await one.begin(bench.conn)
    return one


async def take_in(bench: Bench, rows: list[SaleRow], **terms: Any) -> dict[str, int]:
    """The fates of the rows of a file."""
    return dict(by_fate(await (await importer(bench, **terms)).store(bench.conn, rows)))


async def everything(bench: Bench) -> list[Any]:
    tables = ("conversions", "conversion_changes", "stats_hourly", "conversion_keys", "postback_outbox", "imported_rows")
    return [Counter(map(repr, await bench.rows(f"TABLE {table}"))) for table in tables]


async def test_a_plain_file_is_booked_as_postbacks_would_be_and_once(embedded_bench: Bench) -> None:
    """The same money as by postback, at the file's date; again, nothing changes; the roll-ups agree."""
    bench = embedded_bench
    scribe = bench.scribe()
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n) for n in range(3)]
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    rows = sales("click_id,amount,date", *(f"{one.hex()},49.90,{at}" for one in clicks))
    assert await take_in(bench, rows) == {"fresh": 3}
    stored = await bench.rows(
        "SELECT status, amount::text, payout::text, revenue::text, via, status_code, to_char(converted_at, 'YYYY-MM-DD HH24:MI:SS')"
        " FROM conversions"
    )
    assert stored == [("approved", "49.900000", "5.000000", "7.500000", "import", 217, at)] * 3
    assert await differences(bench.conn) == []
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 3}
    assert await everything(bench) == before


async def test_what_a_postback_brought_is_not_brought_again(embedded_bench: Bench) -> None:
    """Of an offer that counts every sale: the row within a day of the postback and of its amount is the same sale."""
    bench = embedded_bench
    await bench.apply(NEW)
    scribe = bench.scribe(revision=2)
    click = scribe.click(ms=now_ms() - 3 * DAY_MS, offer_id=18)
    scribe.convert(click, amount="10", ip="198.51.100.7", security_token="s3cret")
    await bench.drain()
    assert await bench.rows("SELECT status, reason FROM conversions") == [("approved", "")]
    near, far = when(now_ms() - 20 * HOUR_MS), when(now_ms() - 30 * HOUR_MS)
    rows = sales(
        "click_id,amount,date",
        f"{click.hex()},10,{near}",
        f"{click.hex()},10.00,{near}",
        f"{click.hex()},11,{near}",
        f"{click.hex()},10,{far}",
    )
    assert await take_in(bench, rows) == {"known": 1, "fresh": 3}
    assert await bench.rows("SELECT amount::int, count(*) FROM conversions GROUP BY 1 ORDER BY 1") == [(10, 3), (11, 1)]
    before = await everything(bench)
    assert await take_in(bench, rows) == {"known": 4}
    assert await everything(bench) == before
    assert await differences(bench.conn) == []
