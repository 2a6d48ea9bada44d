"""Contacts, cohorts and the rows behind figures over the API, each caller its own, and `clickedge cohorts`."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from edge.cli.cohorts import cohorts
from storage.postgres.connection import connect
from storage.postgres.contacts import ContactRow, upsert_contacts
from storage.postgres.listing.drill import LISTABLE
from tests.postgres.api import Client, bearer, open_api
from tests.postgres.people import ODD, Row, Tables

NOW = datetime.now(UTC)
SINCE = str((NOW - timedelta(days=80)).date())


@pytest.fixture
async def client(town: tuple[str, Tables], data_dir: Path) -> AsyncIterator[Client]:
    """The API on it."""
    async with open_api(town[0], data_dir, api_rate_limit=0) as client:
        yield client


@pytest.fixture
def tables(town: tuple[str, Tables]) -> Tables:
    """All that is in it."""
    return town[1]


async def get(client: Client, path: str, key: str = "reports", status: int = 200) -> Any:
    """The JSON of an answer."""
    answer = await client.get(f"/api/v1{path}", headers=bearer(key))
    assert answer.status == status, await answer.text()
    return await answer.json()


async def walk(client: Client, path: str, key: str = "reports", limit: int = 20) -> list[Row]:
    """All pages of a list."""
    rows: list[Row] = []
    cursor = ""
    while True:
        page = await get(client, f"{path}{'&' if '?' in path else '?'}limit={limit}&cursor={cursor}", key)
        rows += page["data"]
        if page["next_cursor"] is None:
            return rows
        cursor = page["next_cursor"]


async def test_a_report_s_figure_leads_to_its_rows(client: Client, tables: Tables) -> None:
    """The report's own URL with `metric` behind it, for clicks and conversions; without one all rows."""
    shared = f"from={SINCE}&dimensions=offer&metrics=gross_clicks,conversions,impressions&by=click"
    report = await get(client, f"/reports?{shared}")
    assert len(report["data"]) == 3
    for row in report["data"]:
        for kind, metric in (("clicks", "gross_clicks"), ("conversions", "conversions"), ("impressions", "impressions")):
            found = await walk(client, f"/{kind}?{shared}&offer={row['dimensions']['offer']}&metric={metric}")
            assert len(found) == row["metrics"][metric]
    assert len(await walk(client, f"/clicks?from={SINCE}", limit=1000)) == len(tables.clicks)


async def test_rows_have_ids_as_links_have_them_and_exact_money(client: Client, tables: Tables) -> None:
    """32 hexadecimal digits; the network sees every column."""
    clicks = {row["click_id"].hex: row for row in tables.clicks}
    for one in await walk(client, f"/clicks?from={SINCE}", limit=200):
        row = clicks[one["click_id"]]
        assert (one["revenue"], one["offer_id"], one["ip"]) == (float(row["revenue"]), row["offer_id"], str(row["ip"]))
        assert one.keys() == row.keys()
    sold = {row["conversion_id"].hex: row for row in tables.conversions}
    for one in await walk(client, f"/conversions?from={SINCE}", limit=200):
        assert one["click_id"] == sold[one["conversion_id"]]["click_id"].hex
        assert one.keys() == sold[one["conversion_id"]].keys()


async def test_a_key_lists_its_own_rows_only(client: Client, tables: Tables) -> None:
    """No revenue and no address for a partner, no payout for an advertiser; others' rows are not there for them."""
    mine = await walk(client, f"/conversions?from={SINCE}", "partner", 100)
    assert len(mine) == sum(row["aff_id"] == 2 for row in tables.conversions)
    assert {"revenue", "ip", "advertiser_id"}.isdisjoint(mine[0])
    theirs = await walk(client, f"/clicks?from={SINCE}", "advertiser", 100)
    assert {one["offer_id"] for one in theirs} == {17, 18}
    assert {"payout", "cost", "ip"}.isdisjoint(theirs[0])
    await get(client, "/clicks?partner=3", "partner", 404)
    await get(client, "/conversions?metric=revenue", "partner", 422)
    for path in ("/contacts", "/contacts/p1", "/contacts/p1/journey", "/cohorts"):
        for key in ("partner", "advertiser"):
            await get(client, path, key, 403)


@pytest.mark.parametrize("metric", ["clicks", "invalid_clicks", "impressions", "conversions", "rejected", "revenue", "payout"])
async def test_a_figure_leads_to_its_contacts(client: Client, tables: Tables, metric: str) -> None:
    """Those whom its rows name, and who are not deleted."""
    shared = f"from={SINCE}&partner=2&metric={metric}"
    names = set()
    for kind, metrics in LISTABLE.items():
        if metric in metrics:
            names |= {row["contact_id"] for row in await walk(client, f"/{kind}?{shared}", limit=500)}
    found = [one["contact_id"] for one in await walk(client, f"/contacts?{shared}", limit=7)]
    assert len(found) == len(set(found))
    assert set(found) == names - {""}
    assert found
    assert len(found) < len(tables.contacts)


async def test_contacts_are_listed_and_shown_with_their_journeys(client: Client, tables: Tables) -> None:
    """Filters mean what they say; each contact is found by its id, and its steps are what its figures count."""
    alive = [row for row in tables.contacts if row["deleted_at"] is None]
    assert {one["contact_id"] for one in await walk(client, "/contacts")} == {row["contact_id"] for row in alive}
    vip = await walk(client, "/contacts?list=vip&has_converted=true", limit=2)
    assert vip
    assert all(one["list"] == "vip" and one["conversions"] for one in vip)
    for one in vip:
        assert await get(client, f"/contacts/{one['contact_id']}") == one
        steps = await walk(client, f"/contacts/{one['contact_id']}/journey", limit=3)
        kinds = [step["kind"] for step in steps]
        assert (kinds.count("click"), kinds.count("impression")) == (one["gross_clicks"], one["impressions"])
        approved = [step for step in steps if step["kind"] == "conversion" and step["status"] == "approved"]
        assert len(approved) == one["conversions"] == sum(money["conversions"] for money in one["money"])
        assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)


async def test_sends_are_what_was_imported_and_else_unknown(client: Client) -> None:
    """A number, or text that is one; a contact of whom nobody said has none, not zero. Any character may be in an id."""
    odd = await get(client, f"/contacts/{quote(ODD, safe='')}")
    assert (odd["contact_id"], odd["sends"], odd["clicks"], odd["money"]) == (ODD, 12, 0, [])
    assert await get(client, f"/contacts/{quote(ODD, safe='')}/journey") == {"data": [], "next_cursor": None}
    by_id = {one["contact_id"]: one["sends"] for one in await walk(client, "/contacts")}
    assert (by_id["p6"], by_id["p2"]) == (6, None)


async def test_a_deleted_contact_is_not_there_any_more(client: Client, town: tuple[str, Tables]) -> None:
    """Nor can it be deleted twice; only an admin's key may."""
    conn = await connect(town[0])
    await upsert_contacts(conn, [ContactRow("gone")])
    await conn.close()
    assert (await client.delete("/api/v1/contacts/gone", headers=bearer("reports"))).status == 403
    assert (await client.delete("/api/v1/contacts/gone", headers=bearer("admin"))).status == 204
    for path in ("/contacts/gone", "/contacts/gone/journey", "/contacts/p0", "/contacts/nobody"):
        await get(client, path, status=404)
    assert (await client.delete("/api/v1/contacts/gone", headers=bearer("admin"))).status == 404


async def test_cohorts_say_what_is_over_and_what_each_contact_brought(client: Client) -> None:
    """For each currency apart, windows as asked for."""
    found = (await get(client, f"/cohorts?from={SINCE}&cohort=week&windows=30,1&timezone=Europe/Berlin"))["data"]
    assert {one["currency"] for one in found} >= {"USD", "EUR"}
    for one in found:
        assert [window["days"] for window in one["windows"]] == [1, 30]
        for window in one["windows"]:
            assert window["revenue_per_contact"] == pytest.approx(window["revenue"] / one["contacts"], abs=1e-6)
    euros = (await get(client, f"/cohorts?from={SINCE}&currency=EUR&list=news&list="))["data"]
    assert {one["currency"] for one in euros} <= {"EUR", ""}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/contacts?limit=0&limit=1", {"limit"}),
        ("/contacts?limit=1001", {"limit"}),
        ("/contacts?from=yesterday&timezone=Mars&has_converted=maybe&colour=red",
         {"from", "timezone", "has_converted", "colour"}),
        ("/contacts?cursor=nonsense", {"cursor"}),
        ("/contacts?metric=epc", {"metric"}),
        ("/contacts?metric=clicks&has_converted=true", {"has_converted"}),
        ("/contacts/p1/journey?cursor=W10", {"cursor"}),
        ("/contacts?list=a%00b", {"list"}),
        ("/cohorts?cohort=year&windows=0,x&from=2026-05-01&to=2026-04-01", {"cohort", "windows", "to"}),
        ("/cohorts?from=2000-01-01&cohort=day", {"from"}),
        ("/cohorts?windows=" + ",".join(map(str, range(1, 30))), {"windows"}),
        ("/clicks?metric=cr&limit=x&offer=y&cursor=1", {"metric", "limit", "offer"}),
        ("/clicks?cursor=1", {"cursor"}),
        ("/conversions?from=2026-02-30&by=luck", {"from", "by"}),
        ("/clicks?offer=1%27%20OR%201=1", {"offer"}),
    ],
)  # fmt: skip
async def test_every_fault_of_a_request_is_named(client: Client, path: str, fields: set[str]) -> None:
    """Status 422 with each parameter at fault."""
    problem = await get(client, path, status=422)
    assert {error["field"] for error in problem["errors"]} == fields


def test_cohorts_are_printed_as_a_table_csv_and_json(town: tuple[str, Tables]) -> None:
    """The same figures in each; windows that are not over are marked; wrong options are one clear line."""
    runner = CliRunner()

    def run(*options: str) -> str:
        done = runner.invoke(cohorts, ["--database", town[0], "--from", SINCE, *options], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    rows = list(csv.DictReader(io.StringIO(run("--csv", "--windows", "7,90"))))
    found = json.loads(run("--json", "--windows", "7,90"))["data"]
    flat = [(one["starts_on"], one["currency"], window) for one in found for window in one["windows"]]
    assert len(rows) == len(flat) >= 4
    for row, (cohort, currency, window) in zip(rows, flat, strict=True):
        assert (row["cohort"], row["currency"], row["days"]) == (cohort, currency, str(window["days"]))
        assert float(row["revenue"]) == window["revenue"]
        assert row["is_complete"] == str(window["is_complete"]).lower()
    table = run("--filter", "currency=EUR", "--cohort", "week")
    assert "90 days" in table
    assert "* not over yet for all of them" in table
    assert "no contact came in that time" in run("--to", "2026-01-01", "--from", "2026-01-01")
    for options in (["--filter", "colour=red"], ["--windows", "none"], ["--cohort", "year"]):
        done = runner.invoke(cohorts, ["--database", town[0], *options])
        assert done.exit_code != 0
