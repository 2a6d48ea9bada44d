"""`GET /api/v1/reports` and `clickedge report`: the worked example, each caller's own figures, bad input."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge.cli import cli
from edge.cli.report import money
from storage.postgres.partitions import Partitions
from storage.postgres.rollups import forget_rollups
from tests.conftest import Server
from tests.postgres.api import Client, add_key, bearer, open_api
from tests.postgres.drains import CATALOG, now_ms, open_bench

# 600 conversions on 15,000 clicks that earned 14,400.
_EXAMPLE = CATALOG.replace('payout = "5.00"\nrevenue = "7.50"', 'payout = "10.00"\nrevenue = "24.00"')
DAY = datetime(2026, 10, 15, tzinfo=UTC)
_CLICKS = """
    INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, source, currency, outcome, country, device_type)
    SELECT (lpad(to_hex($1::bigint + n * 1000), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
           to_timestamp(($1::bigint + n * 1000) / 1000.0), 0, 17, 2 + n % 2, CASE n % 3 WHEN 0 THEN 'news' ELSE 'mail' END,
           'USD', 'redirected', 'US', 'mobile'
    FROM generate_series(0, 14999) AS n
"""
_CONVERSIONS = """
    INSERT INTO conversions (conversion_id, click_id, advertiser_id, offer_id, aff_id, touched_at, converted_at, received_at,
        amount, currency, revenue, payout, status, via, country, device_type)
    SELECT gen_random_uuid(), click_id, 1, 17, aff_id, clicked_at, clicked_at + interval '1 minute',
        clicked_at + interval '1 minute', 60, 'USD', 24, 10, 'approved', 'postback', 'US', 'mobile'
    FROM (SELECT *, row_number() OVER (ORDER BY click_id) AS n FROM clicks) AS numbered WHERE n % 25 = 0
"""
_CHANGES = """
    INSERT INTO conversion_changes (conversion_id, booked_hour, kind, status_after, conversions_delta, amount_delta,
        revenue_delta, payout_delta)
    SELECT conversion_id, date_trunc('hour', received_at), 'decided', 'approved', 1, 60, 24, 10 FROM conversions
"""
_STATS = """
    INSERT INTO stats_hourly (hour, node_id, advertiser_id, offer_id, aff_id, country, device_type, currency, gross_clicks,
        unique_clicks, conversions, amount, revenue, payout)
    SELECT hour, 0, 1, 17, aff_id, 'US', 'mobile', 'USD', sum(clicks), sum(clicks), sum(conversions), sum(conversions) * 60,
        sum(conversions) * 24, sum(conversions) * 10
    FROM (SELECT date_trunc('hour', clicked_at) AS hour, aff_id, 1 AS clicks, 0 AS conversions FROM clicks
          UNION ALL SELECT booked_hour, aff_id, 0, 1 FROM conversion_changes JOIN conversions USING (conversion_id)) AS rows
    GROUP BY hour, aff_id
"""


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API over the worked example, with a key of each scope."""
    async with open_bench(data_dir, database, _EXAMPLE) as bench:
        await Partitions().ensure(bench.conn, [DAY.date()])
        await bench.conn.execute(_CLICKS, round(DAY.timestamp() * 1000))
        for statement in (_CONVERSIONS, _CHANGES, _STATS):
            await bench.conn.execute(statement)
        await forget_rollups(bench.conn)  # the sums of hours were written by hand
    for token, scope, ids in (
        ("root", "admin", {}),
        ("two", "partner", {"aff_id": 2}),
        ("one", "advertiser", {"advertiser_id": 1}),
    ):
        await add_key(database, token, scope, **ids)
    async with open_api(database, data_dir) as client:
        yield client


async def get(client: Client, query: str, token: str = "root", status: int = 200) -> Any:
    """The answer's JSON."""
    answer = await client.get(f"/api/v1/reports?{query}", headers=bearer(token))
    assert answer.status == status, await answer.text()
    return await answer.json()


_PERIOD = "from=2026-10-15&to=2026-10-15"


async def test_the_worked_example_comes_out_of_the_api(client: Client) -> None:
    """600 conversions on 15,000 clicks that earned 14,400: EPC 0.96, CR 4 %, from roll-ups and from rows alike."""
    for more in (
        "",
        "&dimensions=offer",
        "&dimensions=utm_source",
        "&by=click",
        "&dimensions=browser&by=click&touch=first",
    ):
        found = await get(client, f"{_PERIOD}&metrics=clicks,conversions,revenue,epc,cr,aov{more}")
        expected = {"clicks": 15000, "conversions": 600, "revenue": 14400, "epc": 0.96, "cr": 4, "aov": 60}
        assert found["totals"]["metrics"] == expected
        assert [row["metrics"] for row in found["data"]] == [expected]
        assert (found["currencies"], found["notes"], found["row_count"]) == (["USD"], [], 1)
    assert found["columns"]["metrics"][3] == {
        "name": "epc", "label": "EPC (per valid click)", "kind": "money", "formula": "revenue / valid clicks",
    }  # fmt: skip


async def test_a_real_run_of_the_worked_example_gives_the_same_ratios(database: str, data_dir: Path) -> None:
    """A hundredth of it, through a journal and the drain, by roll-ups and rows."""
    async with open_bench(data_dir, database, _EXAMPLE) as bench:
        scribe = bench.scribe()
        clicks = [scribe.click(ms=now_ms() - 1000, visitor=n.to_bytes(16, "big")) for n in range(1, 151)]
        for click_id in clicks[::25]:
            scribe.convert(click_id, amount="60")
        scribe.close()
        await bench.drain()
        await add_key(database, "root")
        async with open_api(database, data_dir) as client:
            for more in ("", "&dimensions=partner", "&dimensions=browser", "&by=click"):
                found = await get(client, f"metrics=clicks,conversions,revenue,epc,cr{more}")
                expected = {"clicks": 150, "conversions": 6, "revenue": 144, "epc": 0.96, "cr": 4}
                assert found["totals"]["metrics"] == expected
            assert found["as_of"]
            assert found["lag_s"] is not None


async def test_a_partner_sees_its_own_rows_and_no_revenue(client: Client) -> None:
    """Its EPC is of its payout; others' rows are not there, whatever is filtered by."""
    mine = await get(client, f"{_PERIOD}&dimensions=partner", "two")
    [row] = mine["data"]
    assert row["dimensions"] == {"partner": 2}
    assert not {"revenue", "profit", "cost"} & row["metrics"].keys()
    counted = await get(client, f"{_PERIOD}&metrics=clicks,payout,epc&partner=2")
    assert row["metrics"]["payout"] == counted["totals"]["metrics"]["payout"]
    assert row["metrics"]["epc"] == pytest.approx(row["metrics"]["payout"] / row["metrics"]["clicks"], abs=1e-6)
    assert mine["labels"] == {"partner": {"2": "Deal Blog"}}
    assert (await get(client, f"{_PERIOD}&partner=3", "two", 404))["title"] == "Not Found"
    both = await get(client, f"{_PERIOD}&partner=2&partner=3&dimensions=partner,source", "two")
    assert {row["dimensions"]["partner"] for row in both["data"]} == {2}
    refused = await get(client, f"{_PERIOD}&metrics=clicks,revenue&sort=-profit", "two", 422)
    assert {error["field"] for error in refused["errors"]} == {"metrics", "sort"}


async def test_an_advertiser_sees_its_own_rows_and_no_payout(client: Client, database: str) -> None:
    """Of roll-ups and of rows alike; another advertiser has nothing."""
    for dimension in ("offer", "source"):
        mine = await get(client, f"{_PERIOD}&dimensions={dimension}", "one")
        assert mine["totals"]["metrics"]["revenue"] == 14400
        assert not {"payout", "profit", "cost"} & mine["totals"]["metrics"].keys()
    await add_key(database, "other", "advertiser", advertiser_id=2)
    for dimension in ("offer", "source"):
        other = await get(client, f"{_PERIOD}&dimensions={dimension}&metrics=gross_clicks,conversions,revenue", "other")
        assert other["data"] == []
        assert other["totals"]["metrics"] == {"gross_clicks": 0, "conversions": 0, "revenue": 0}
    assert (await get(client, f"{_PERIOD}&advertiser=1", "other", 404))["detail"] == "there is no such advertiser"


async def test_what_an_archived_offer_cost_stays_its_advertisers(client: Client) -> None:
    """In rows and filters alike, as its clicks and conversions do."""
    root = bearer("root")
    row = {"day": "2026-10-15", "offer_id": 17, "currency": "USD", "amount": 120}
    assert (await client.put("/api/v1/costs", json={"data": [row]}, headers=root)).status == 200
    asked = f"{_PERIOD}&metrics=revenue,cost,roas"
    expected = {"revenue": 14400, "cost": 120, "roas": 120}
    for _ in range(2):
        found = await get(client, f"{asked}&dimensions=advertiser")
        assert [(row["dimensions"]["advertiser"], row["metrics"]) for row in found["data"]] == [(1, expected)]
        assert (await get(client, f"{asked}&advertiser=1"))["totals"]["metrics"] == expected
        await client.delete("/api/v1/offers/17", headers={**root, "If-Match": "*"})
    assert (await client.get("/api/v1/offers/17", headers=root)).status == 404


async def test_bad_parameters_are_a_problem_that_names_each(client: Client) -> None:
    """SQL in a filter is a value that nothing has."""
    refused = await get(client, "from=2026-02-30&dimensions=nope&limit=1000000&what=1", status=422)
    assert {error["field"] for error in refused["errors"]} == {"from", "dimensions", "limit", "what"}
    found = await get(client, f"{_PERIOD}&metrics=gross_clicks&source=' OR 1=1 --&extra.x=%24%281%29")
    assert (found["data"], found["totals"]["metrics"]) == ([], {"gross_clicks": 0})
    assert (await client.get("/api/v1/reports")).status == 401


async def test_a_long_report_comes_in_pages(client: Client) -> None:
    """By its cursor, without another word about it."""
    query = f"{_PERIOD}&dimensions=hour,partner&metrics=clicks&limit=7"
    rows: list[tuple[Any, ...]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await get(client, f"{query}&cursor={cursor}")
        rows += [tuple(row["dimensions"].values()) for row in page["data"]]
        cursor = page["next_cursor"]
    assert len(rows) == len(set(rows)) == page["row_count"] == 10
    assert rows[:2] == [("2026-10-15T00:00:00Z", 2), ("2026-10-15T00:00:00Z", 3)]


async def test_the_page_of_parameters_lists_all_dimensions(client: Client) -> None:
    """Each is a filter, several times; what is answered is described."""
    page = await (await client.get("/api/openapi.json")).json()
    parameters = {one["name"]: one["schema"] for one in page["paths"]["/api/v1/reports"]["get"]["parameters"]}
    assert {"dimensions", "from", "utm_term", "list"} < parameters.keys()
    assert parameters["offer"]["type"] == "array"


def test_the_command_prints_a_table_csv_or_json(month_url: str, embedded_server: Server) -> None:
    """The same figures; the header names the denominator, the end says how fresh it is."""

    def run(*arguments: str) -> str:
        period = ("--from", "2026-10-01", "--to", "2026-10-31", "--database", month_url)
        done = CliRunner().invoke(cli, ["report", *period, *arguments], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    asked = ("--dimensions", "offer", "--metrics", "clicks,cr,revenue", "--filter", "offer=17", "--clicks", "gross")
    table = run(*asked)
    assert "CR (per gross click)" in table
    assert "17 Flat" in table
    assert "money in USD" in table
    assert "complete through 20" in table
    header, row = run(*asked, "--csv").splitlines()
    assert header == "Offer,Clicks (gross),CR (per gross click),Revenue"
    answer = json.loads(run(*asked, "--json"))
    figures = answer["data"][0]["metrics"]
    assert [float(cell) for cell in row.split(",")] == [17, figures["clicks"], figures["cr"], figures["revenue"]]
    assert "stats_hourly" in run(*asked, "--explain")


def test_the_table_has_the_total_of_each_currency(month_url: str, embedded_server: Server) -> None:
    """Under the rows, each in its currency; the last line has counts alone, as money of two currencies is never added."""

    def run(*arguments: str) -> str:
        asked = ["--from", "2026-10-01", "--to", "2026-10-31", "--dimensions", "offer", "--metrics", "conversions,revenue"]
        done = CliRunner().invoke(cli, ["report", *asked, "--database", month_url, *arguments], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    answer = json.loads(run("--json"))
    assert len(answer["totals_by_currency"]) > 1
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in run().splitlines() if line.startswith("│ all")]
    expected = [
        ["all", row["dimensions"]["currency"] or "-", f"{row['metrics']['conversions']:,}", money(Decimal(str(row["metrics"]["revenue"])))]
        for row in answer["totals_by_currency"]
    ]
    assert lines == [*expected, ["all", "", f"{answer['totals']['metrics']['conversions']:,}", "-"]]


def test_names_are_shown_as_the_text_that_they_are(database: str, data_dir: Path, embedded_server: Server) -> None:
    """What looks like a terminal's markup, or like a script, is none."""
    name = "[red]<script>x</script>[/nope]"

    async def fill() -> None:
        async with open_bench(data_dir, database, CATALOG.replace('"Flat"', f'"{name}"')) as bench:
            columns = "(hour, node_id, offer_id, gross_clicks)"
            await bench.conn.execute(f"INSERT INTO stats_hourly {columns} VALUES ('2026-10-15 12:00Z', 0, 17, 1)")

    embedded_server.runner.run(fill())
    period = ["--from", "2026-10-15", "--to", "2026-10-15", "--dimensions", "offer", "--metrics", "clicks"]
    done = CliRunner().invoke(cli, ["report", "--database", database, *period], env={"COLUMNS": "200"})
    assert (done.exit_code, f"17 {name}" in done.output) == (0, True), done.output


def test_the_command_says_what_is_wrong(month_url: str) -> None:
    """All of it, in one line."""
    arguments = ["report", "--database", month_url, "--dimensions", "nope", "--from", "x", "--filter", "of=1"]
    done = CliRunner().invoke(cli, arguments)
    assert str(done.exception).startswith("from: 'x' is no date")
    assert "dimensions: there is no dimension 'nope'" in str(done.exception)
    assert "of: there is no such parameter" in str(done.exception)
    assert "write it NAME=VALUE" in str(CliRunner().invoke(cli, [*arguments, "--filter", "offer"]).exception)
