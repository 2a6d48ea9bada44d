"""Statements of real conversions: equal to the roll-ups, final once the month is closed, corrections in the next."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from edge.closing import close, span_in_force
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.errors import UserError
from edge.statements.building import summarise
from edge.statements.finding import Whose, find_statement, find_statements
from edge.statements.forms import to_csv, to_overview, to_page, to_text
from edge.statements.statement import PartyKind, Statement
from edge.tracking.changes import Wanted
from storage.postgres.installation import remember
from storage.postgres.months import reopen_month
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import run_report
from storage.postgres.reports.viewer import ADMIN
from tests.postgres.drains import CATALOG, Bench, open_bench
from tests.postgres.past import decide_in_the_past
from tests.postgres.test_importing import foreign, importer

PERCENT, CLICKS, YEN = 30, 31, 32
OFFERS = CATALOG + """
[[advertisers]]
id = 3
name = "Percenters"
[[offers]]
id = 30
advertiser_id = 3
name = "<script>alert(1)</script>"
url = "https://x.example/"
payout_type = "cpa_percentage"
payout_percent = "3.33"
revenue_type = "cpa_percentage"
revenue_percent = "5"
currency = "EUR"
[[offers]]
id = 31
advertiser_id = 1
name = "=1+1"
url = "https://x.example/"
payout_type = "cpc"
payout = "0.0125"
revenue_type = "cpc"
revenue = "0.025"
[[offers]]
id = 32
advertiser_id = 1
name = "Yen"
url = "https://x.example/"
payout = "10.5"
revenue = "11.5"
currency = "JPY"
"""
DECIDED_DAYS_AGO = 70


@pytest.fixture
async def past(data_dir: Path, any_database: str) -> AsyncIterator[tuple[Bench, date]]:
    """A bench whose conversions were all decided in a month that is over, and that month."""
    async with open_bench(data_dir, any_database, OFFERS) as bench:
        scribe = bench.scribe()
        for amount in ("10.00", "20.05", "0.77"):
            scribe.convert(scribe.click(offer_id=PERCENT), amount=amount, currency="EUR")
        for number in range(7):
            scribe.convert(scribe.click(aff_id=2 + number % 2), goal_id=number % 2)
        for visitor in range(3):
            scribe.click(offer_id=CLICKS, visitor=bytes([visitor] * 16))
        scribe.convert(scribe.click(offer_id=YEN))
        await bench.drain()
        month = await decide_in_the_past(bench.conn, DECIDED_DAYS_AGO)
        await _move_clicks(bench)
        yield bench, month


async def _move_clicks(bench: Bench) -> None:
    """The clicks' counts to where the money was moved."""
    await bench.conn.execute(
        "UPDATE stats_hourly SET hour = hour - make_interval(days => $1), node_id = 9 WHERE gross_clicks > 0",
        DECIDED_DAYS_AGO,
    )


async def stated(bench: Bench, month: date, partner: int = 2) -> Statement:
    """That partner's statement, which must be there."""
    found = await find_statement(bench.conn, month, Whose("partner", partner), now=datetime.now(UTC))
    assert found is not None
    return found


def sums(statement: Statement) -> dict[str, tuple[Decimal, Decimal]]:
    """Total, exact and rounded, by currency."""
    return {part.currency: (part.total_exact, part.total) for part in statement.parts}


async def change(bench: Bench, conversion_id: UUID, status: Any = "", **money: str) -> None:
    """As `clickedge conversion` does it."""
    wanted = Wanted(status, "other", **{name: Decimal(text) for name, text in money.items()})
    await change_conversion(bench.conn, CatalogHistory(), conversion_id, wanted, actor="a test")


async def conversions_of(bench: Bench, offer_id: int) -> list[UUID]:
    rows = await bench.rows("SELECT conversion_id FROM conversions WHERE offer_id = $1 ORDER BY 1", offer_id)
    return [row[0] for row in rows]


async def rolled_up(bench: Bench, month: date, measure: str, where: str) -> dict[str, tuple[int, Decimal]]:
    """Conversions and money of a month by currency, from stats_hourly alone."""
    rows = await bench.rows(
        f"SELECT currency, sum(conversions), sum({measure}) FROM stats_hourly WHERE {where} AND hour >= $1"
        f" AND hour < $1 + interval '1 month' GROUP BY 1 HAVING sum({measure}) <> 0",
        datetime(month.year, month.month, 1, tzinfo=UTC),
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def everything(bench: Bench, month: date) -> str:
    """All statements of a month in all forms."""
    text = ""
    for party in ("partner", "advertiser"):
        found = await find_statements(bench.conn, month, party, now=datetime.now(UTC))
        text += "".join([to_csv(found), *map(to_page, found), *map(to_text, found)])
    return text


async def test_an_open_months_statements_equal_the_rollups(past: tuple[Bench, date]) -> None:
    """Every partner's payout and every advertiser's revenue, by currency, exact; and no currency is added to another."""
    bench, month = past
    cases: tuple[tuple[PartyKind, str, str], ...] = (
        ("partner", "aff_id", "payout"),
        ("advertiser", "advertiser_id", "revenue"),
    )
    for party, column, measure in cases:
        found = await find_statements(bench.conn, month, party, now=datetime.now(UTC))
        assert len(found) == 2
        for one in found:
            assert not one.is_final
            expected = await rolled_up(bench, month, measure, f"{column} = {one.id}")
            assert {
                part.currency: (part.sums.conversions, part.total_exact) for part in one.parts if part.total_exact
            } == expected
    assert {part.currency for part in found[0].parts} == {"USD", "JPY"}


async def test_a_statements_lines_are_the_reports_rows(past: tuple[Bench, date]) -> None:
    """The same clicks, conversions, amounts and earnings by offer and currency as the report of that month."""
    bench, month = past
    days = [("from", f"{month}"), ("to", f"{(month + timedelta(days=31)).replace(day=1) - timedelta(days=1)}")]
    asked = [("dimensions", "offer,currency"), ("metrics", "clicks,conversions,amount,payout"), ("partner", "2")]
    query = parse_query([*days, *asked], ADMIN, datetime.now(UTC))
    rows = (await run_report(bench.conn, query, ADMIN, datetime.now(UTC))).rows
    lines: dict[tuple[int, str], list[Decimal]] = {}
    for part in (await stated(bench, month)).parts:
        for line in part.lines:
            sums = lines.setdefault((line.offer_id, part.currency), [Decimal(0)] * 3)
            for place, value in enumerate((Decimal(line.clicks), Decimal(line.conversions), line.total_exact)):
                sums[place] += value
    assert {
        (row.dimensions["offer"], row.dimensions["currency"]): [row.metrics[name] for name in ("clicks", "conversions", "payout")]
        for row in rows
    } == lines


async def test_lines_are_rounded_half_even_and_add_up_to_the_total(past: tuple[Bench, date]) -> None:
    """Of 3.33 % of three amounts, of cents a click, of yen without decimals; what clicks earned stands apart."""
    bench, month = past
    parts = {part.currency: part for part in (await stated(bench, month)).parts}
    assert parts["EUR"].lines[0].total_exact == Decimal("1.026306")
    assert str(parts["EUR"].lines[0].total) == "1.03"
    assert str(parts["JPY"].total) == "10"
    clicks = next(line for line in parts["USD"].lines if line.offer_id == CLICKS)
    assert [str(value) for value in (clicks.total_exact, clicks.total)] == ["0.037500", "0.04"]
    assert (str(clicks.of_conversions), str(clicks.of_clicks), clicks.clicks) == ("0.00", "0.04", 3)
    for part in parts.values():
        assert sum(line.total for line in part.lines) == part.total
        assert all(line.of_conversions + line.of_clicks == line.total for line in part.lines)


async def test_a_closed_months_statements_never_change_again(past: tuple[Bench, date]) -> None:
    """Reversals, adjustments, late conversions, late clicks, other names: byte for byte the same; the next has the rest."""
    bench, month = past
    before = [await stated(bench, month, partner) for partner in (2, 3)]
    await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True)
    printed = await everything(bench, month)
    assert [sums(one) for one in before] == [sums(await stated(bench, month, partner)) for partner in (2, 3)]
    ids = await conversions_of(bench, PERCENT)
    await change(bench, ids[0], "reversed")
    await change(bench, ids[1], payout="0.50")
    await change(bench, (await conversions_of(bench, 17))[0], "rejected")
    await bench.apply(OFFERS.replace("Deal Blog", "Renamed").replace('name = "Yen"', 'name = "Other"'))
    scribe = bench.scribe(revision=2)
    scribe.convert(scribe.click())
    await bench.drain()
    ms = int(datetime(month.year, month.month, 15, tzinfo=UTC).timestamp() * 1000)
    assert await (await importer(bench)).store(bench.conn, [foreign("theirs-1", ms)]) == (1, 0)
    await bench.conn.execute(
        "UPDATE stats_hourly SET gross_clicks = gross_clicks + 2, payout = payout + 0.025, revenue = revenue + 0.05"
        " WHERE offer_id = $1 AND node_id = 9",
        CLICKS,
    )
    assert await everything(bench, month) == printed
    assert "Renamed" not in printed
    following = await stated(bench, (month + timedelta(days=31)).replace(day=1))
    late = {one.line.offer_id: one.line for one in following.parts[0].corrections if one.kind == "late"}
    assert {offer_id: (line.clicks, line.total_exact) for offer_id, line in late.items()} == {
        17: (1, 0), CLICKS: (2, Decimal("0.025"))
    }  # fmt: skip


async def test_the_next_statement_has_what_a_closed_month_missed(past: tuple[Bench, date]) -> None:
    """Apart, with the ids of the conversions; and all statements together are all that was ever booked."""
    bench, month = past
    await _close_through_last_month(bench, month)
    reversed_id, adjusted_id, _ = await conversions_of(bench, PERCENT)
    await change(bench, reversed_id, "reversed")
    await change(bench, adjusted_id, payout="1.00")
    await bench.conn.execute("UPDATE stats_hourly SET payout = payout + 5 WHERE offer_id = $1 AND node_id = 9", CLICKS)
    this_month = datetime.now(UTC).date().replace(day=1)
    found = await stated(bench, this_month)
    parts = {part.currency: part for part in found.parts}
    [correction] = parts["EUR"].corrections
    assert (correction.kind, correction.month, correction.line.offer_id) == ("changed", f"{month:%Y-%m}", PERCENT)
    assert parts["EUR"].lines == []
    assert {one.conversion_id: one.status for one in parts["EUR"].changed_conversions} == {
        reversed_id.hex: "reversed", adjusted_id.hex: "approved"
    }  # fmt: skip
    assert sum(one.total for one in parts["EUR"].changed_conversions) == parts["EUR"].total_exact
    [late] = parts["USD"].corrections
    assert (late.kind, late.month, late.line.total) == ("late", f"{month:%Y-%m}", 5)
    whole = await bench.rows("SELECT currency, sum(payout) FROM stats_hourly WHERE aff_id = 2 GROUP BY 1")
    stated_sums: dict[str, Decimal] = {}
    for each in await _months_from(bench, month):
        for currency, (exact, _) in sums(await stated(bench, each)).items():
            stated_sums[currency] = stated_sums.get(currency, Decimal(0)) + exact
    assert stated_sums == {currency: total for currency, total in whole if total}


async def _months_from(bench: Bench, month: date) -> list[date]:
    found = [month]
    while found[-1] < datetime.now(UTC).date().replace(day=1):
        found.append((found[-1] + timedelta(days=31)).replace(day=1))
    return found


async def _close_through_last_month(bench: Bench, month: date) -> None:
    for each in (await _months_from(bench, month))[:-1]:
        await close(bench.conn, each, now=datetime.now(UTC) + timedelta(days=1), actor="a test", force=True)


async def test_a_reopened_month_states_each_thing_once(past: tuple[Bench, date]) -> None:
    """What a later statement had of it by then stays there; closed again, nothing is in both."""
    bench, month = past
    await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True)
    late = "UPDATE stats_hourly SET payout = payout + 5 WHERE offer_id = $1 AND node_id = 9"
    await bench.conn.execute(late, CLICKS)
    following = (month + timedelta(days=31)).replace(day=1)
    await close(bench.conn, following, now=datetime.now(UTC) + timedelta(days=1), actor="a test", force=True)
    assert sums(await stated(bench, following))["USD"] == (5, 5)
    await reopen_month(bench.conn, month)
    await bench.conn.execute(late, CLICKS)
    for is_closed in (False, True):
        if is_closed:
            await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True)
        exact = sums(await stated(bench, month))["USD"][0]
        assert exact + 5 == (await rolled_up(bench, month, "payout", "aff_id = 2"))["USD"][1]
        assert sums(await stated(bench, following))["USD"] == (5, 5)


async def test_a_month_closed_without_lines_keeps_them_when_it_is_first_read(past: tuple[Bench, date]) -> None:
    """As after a kill between closing and keeping, or closed by an earlier release."""
    bench, month = past
    span = await span_in_force(bench.conn, month)
    await bench.conn.execute("INSERT INTO closed_months (month, starts_at, ends_at) VALUES ($1, $2, $3)", *span)
    first = await everything(bench, month)
    await bench.conn.execute("UPDATE stats_hourly SET payout = payout + 5 WHERE node_id = 9")
    assert await everything(bench, month) == first


async def test_months_of_another_time_zone_neither_overlap_nor_leave_a_gap(past: tuple[Bench, date]) -> None:
    """EDGE_TIMEZONE changes after a month was closed: the next begins where that ended."""
    bench, month = past
    await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True)
    await remember(bench.conn, "timezone", "Pacific/Auckland")
    closed = await span_in_force(bench.conn, month)
    following = await span_in_force(bench.conn, (month + timedelta(days=31)).replace(day=1))
    assert following.starts_at == closed.ends_at
    assert following.ends_at.hour in (11, 12)
    assert (await stated(bench, month)).timezone == "UTC"


async def test_a_month_is_closed_once_and_only_when_all_of_it_is_stored(past: tuple[Bench, date]) -> None:
    """Not while a journal may hold events of it, unless that is accepted."""
    bench, month = past
    await bench.conn.execute("UPDATE journal_positions SET watermark_ms = 0")
    with pytest.raises(UserError, match=f"1 journals may still hold events of {month:%Y-%m}: wait, or say --force"):
        await close(bench.conn, month, now=datetime.now(UTC), actor="a test")
    assert await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True) == await span_in_force(bench.conn, month)
    with pytest.raises(UserError, match="is closed already"):
        await close(bench.conn, month, now=datetime.now(UTC), actor="a test", force=True)


async def test_a_month_that_ends_within_an_hour_has_all_of_that_hour(past: tuple[Bench, date]) -> None:
    """In India it is over at 18:30 UTC, and what comes until 19:00 is booked in its last hour: it is closed after that."""
    bench, month = past
    await remember(bench.conn, "timezone", "Asia/Kolkata")
    ends_at = (await span_in_force(bench.conn, month)).ends_at
    assert (ends_at.hour, ends_at.minute) == (18, 30)
    with pytest.raises(UserError, match=r"can be closed from .* 19:10:00"):
        await close(bench.conn, month, now=ends_at + timedelta(minutes=39), actor="a test")
    read_ms = round((ends_at + timedelta(minutes=20)).timestamp() * 1000)
    await bench.conn.execute("UPDATE journal_positions SET watermark_ms = $1", read_ms)
    with pytest.raises(UserError, match="may still hold events"):
        await close(bench.conn, month, now=ends_at + timedelta(minutes=40), actor="a test")
    await bench.conn.execute("UPDATE journal_positions SET watermark_ms = $1", read_ms + 600_000)
    await close(bench.conn, month, now=ends_at + timedelta(minutes=40), actor="a test")


async def test_what_cannot_be_stated_is_said(past: tuple[Bench, date]) -> None:
    """A month that has not begun, a partner that the catalog never had; a partner without anything has a statement."""
    bench, month = past
    with pytest.raises(UserError, match="has not begun"):
        await find_statements(bench.conn, date(datetime.now(UTC).year + 1, 1, 1), "partner", now=datetime.now(UTC))
    assert await find_statement(bench.conn, month, Whose("partner", 99), now=datetime.now(UTC)) is None
    await bench.apply(OFFERS + '[[partners]]\nid = 4\nname = "Idle"\n')
    assert (await stated(bench, month, 4)).parts == []
    assert "nothing in this month" in to_text(await stated(bench, month, 4))


async def test_what_advertisers_owe_stands_in_no_column_of_payouts(past: tuple[Bench, date]) -> None:
    """In a table of both the column says what both have in common; of one kind it says what it is."""
    bench, month = past
    of_partners = await find_statements(bench.conn, month, "partner", now=datetime.now(UTC))
    of_advertisers = await find_statements(bench.conn, month, "advertiser", now=datetime.now(UTC))
    for found, column in ((of_partners, "payout"), (of_advertisers, "revenue"), ([*of_partners, *of_advertisers], "due")):
        rows = list(csv.DictReader(io.StringIO(to_csv(found))))
        columns = {name for name in rows[0] if "payout" in name or "revenue" in name or "due" in name}
        assert columns == {column, f"{column}_of_conversions", f"{column}_of_clicks"}
        totals = {(row["party"], int(row["id"]), row["currency"]): Decimal(row[column]) for row in rows if row["kind"] == "total"}
        assert totals == {(one.party, one.id, part.currency): part.total for one in found for part in one.parts}


async def test_names_are_text_in_every_form(past: tuple[Bench, date]) -> None:
    """No script in the page, no formula in the table."""
    bench, month = past
    statement = await stated(bench, month)
    page = to_page(statement)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    rows = list(csv.DictReader(io.StringIO(to_csv([statement]))))
    assert {row["offer"] for row in rows if row["kind"] == "line"} == {
        "Flat", "'=1+1", "Yen", "<script>alert(1)</script>"
    }  # fmt: skip
    for currency in ("EUR", "USD", "JPY"):
        own = [row for row in rows if row["currency"] == currency]
        total = next(Decimal(row["payout"]) for row in own if row["kind"] == "total")
        assert total == sum(Decimal(row["payout"]) for row in own if row["kind"] == "line")
    overview = to_overview(summarise(statement))
    assert all(f"{part.total} {part.currency}" in overview for part in statement.parts)
    assert to_text(statement).startswith("partner 2 Deal Blog")
