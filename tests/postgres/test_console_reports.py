"""The console's Reports page: what its URL asks for, who may ask for what, what is kept, and the rows behind figures."""

import asyncio
import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from io import StringIO
from pathlib import Path

import pytest

from storage.postgres.connection import connect
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.api import bearer, open_api
from tests.postgres.consoles import KEYS, Client, Filled, add_hour, fill, log_in, open_console, read, send


def today() -> datetime:
    """Its beginning."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def span() -> str:
    """The last three days, as a report's parameters."""
    return f"from={today() - timedelta(days=2):%Y-%m-%d}&to={today():%Y-%m-%d}"


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file: yesterday 40 clicks and 4 conversions of partner 2, 10 and 1 of partner 3."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        found = fill(url)
        asyncio.run(_add_figures(url))
        yield found


async def _add_figures(url: str) -> None:
    hour = today() - timedelta(hours=5)
    counts = {"gross_clicks": 40, "unique_clicks": 38, "conversions": 4, "revenue": 30, "payout": 20, "amount": 160}
    await add_hour(url, hour, **counts)
    await add_hour(url, hour - timedelta(days=1), **counts | {"gross_clicks": 32, "payout": 10})
    await add_hour(url, hour, offer_id=18, advertiser_id=2, aff_id=3, gross_clicks=10, conversions=1, revenue=7, payout=3)


def rows_of(page: str) -> list[str]:
    """The table's rows as text, a line each."""
    found = re.findall(r"<tr>(.*?)</tr>", page[page.index('<table class="report">') :], re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", row)).split()) for row in found]


async def test_a_report_is_its_url_and_the_urls_fields_are_the_apis(filled: Filled, data_dir: Path) -> None:
    """What a form without JavaScript sends becomes the API's parameters; that URL shows names, figures, real totals."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        sent = f"dimensions=partner&dimensions=&dimensions=offer&metrics=clicks&metrics=epc&{span()}&by=conversion&timezone="
        answer = await client.get(f"/reports?{sent}&filter_by=offer&filter_value=17", allow_redirects=False)
        url = answer.headers["Location"]
        assert url == f"/reports?dimensions=partner,offer&metrics=clicks,epc&{span()}&offer=17"
        page = await read(client, url)
        [head, row, total] = rows_of(page)
        assert head.startswith("Partner : the partner's id (aff_id) Offer")
        assert "EPC (per valid click) : revenue / valid clicks" in head
        assert row == "Deal Blog 2 Holiday decor 17 72 0.8333 USD Open by…"
        assert total == "Total 72 0.8333 USD"
        answer = await client.get(f"{url}&period=yesterday", headers={"HX-Request": "true"})
        yesterday = f"{today() - timedelta(days=1):%Y-%m-%d}"
        assert f"from={yesterday}&to={yesterday}&offer=17" in answer.headers["HX-Push-Url"]
        text = await answer.text()
        assert "<html" not in text
        assert f"{today() - timedelta(days=1):%d %b %Y} (UTC) · conversions by conversion date · " in text


async def test_the_api_answers_the_same_parameters(filled: Filled, data_dir: Path) -> None:
    """The page's query at the API gives the same figures, and the page's export is the API's export."""
    query = f"dimensions=partner&metrics=clicks,conversions,revenue,epc&{span()}&sort=-clicks&compare=previous"
    async with open_console(filled.url, data_dir) as client, open_api(filled.url, data_dir) as api:
        await log_in(client, "admin")
        page = rows_of(await read(client, f"/reports?{query}"))
        head = bearer(KEYS["admin"][0])
        answer = await (await api.get(f"/api/v1/reports?{query}", headers=head)).json()
        assert [row.split()[2] for row in page[1:3]] == ["2", "3"]
        assert [row["dimensions"]["partner"] for row in answer["data"]] == [2, 3]
        for form in ("csv", "ndjson"):
            asked = f"{query}&format={form}"
            ours = await client.get(f"/reports/export?{asked}")
            theirs = await api.get(f"/api/v1/exports/reports?{asked}", headers=head)
            assert await ours.read() == await theirs.read()
            assert "attachment" in ours.headers["Content-Disposition"]
        lines = list(csv.DictReader(StringIO(await (await client.get(f"/reports/export?{query}")).text())))
        assert [line["clicks"] for line in lines] == ["72", "10"]


async def test_every_fault_stands_beside_its_field_and_the_form_stays(filled: Filled, data_dir: Path) -> None:
    """Wrong dates, names, ids and SQL in filters: the words are at the field, what else was typed is still there."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        evil = "%27%3BDROP+TABLE+clicks%3B--"
        page = await read(
            client, f"/reports?dimensions=offer,nonsense&metrics=cr,epc&from=yesterdayish&timezone=Mars&partner={evil}&quux=1", 422
        )
        for field in ("dimensions", "from", "timezone", "partner"):
            assert f'id="fault-{field}"' in page, field
        assert "no dimension &#39;nonsense&#39;" in page
        assert 'value="yesterdayish"' in page
        assert "quux" in page
        assert '<option value="offer" title="the offer&#39;s id" selected>' in page
        assert re.search(r'value="cr" aria-describedby="formula-cr" checked', page)
        assert '<table class="report">' not in page
        assert (await client.get("/reports?" + "offer=17&" * 893)).status == 414
        answer = await client.get("/reports?from=never", headers={"HX-Request": "true"})
        assert answer.status == 200  # else htmx would not show it
        assert 'id="fault-from"' in await answer.text()


async def test_a_partner_gets_no_revenue_cost_or_foreign_rows_by_any_url(filled: Filled, data_dir: Path) -> None:
    """Not in the pickers, not by parameters, not in files, charts or rows; its own figures are what the network sees of it."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "partner")
        page = await read(client, f"/reports?dimensions=partner&{span()}")
        pickers = re.findall(r'name="metrics" value="(\w+)"', page)
        assert {"payout", "epc", "conversions"} <= set(pickers)
        assert not {"revenue", "profit", "cost", "roi", "rpc", "margin"} & set(pickers)
        assert 'value="advertiser"' not in page
        assert 'name="touch"' not in page
        assert "Coupon" not in page
        assert "Deal Blog 2 72 72 8" in rows_of(page)[1]
        for metric in ("revenue", "profit", "cost", "roas"):
            for path in ("/reports", "/reports/chart.json", "/reports/export"):
                text = await read(client, f"{path}?dimensions=date&metrics={metric}&{span()}", 422)
                assert f"no metric &#39;{metric}&#39;" in text, path
        await read(client, f"/reports?dimensions=advertiser&{span()}", 422)
        for path in ("/reports", "/reports/clicks", "/reports/conversions", "/reports/export", "/reports/chart.json"):
            await read(client, f"{path}?{span()}&partner=3", 404)
        await read(client, f"/reports/contacts?{span()}", 404)
        rows = await read(client, f"/reports/conversions?{span()}&metric=payout")
        assert "5.55" in rows
        assert "7.77" not in rows
        await read(client, f"/reports/conversions?{span()}&metric=revenue", 422)


async def test_each_figure_leads_to_its_rows_and_they_to_the_clicks(filled: Filled, data_dir: Path) -> None:
    """A row's link has the report's parameters, the row's values and the metric; a ratio's leads to what is above its line."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        page = unescape(await read(client, f"/reports?dimensions=offer,partner&metrics=clicks,conversions,cr,epc&{span()}"))
        links = re.findall(r'class="figure-link" href="([^"]+)"', page)
        assert f"/reports/clicks?dimensions=offer,partner&metrics=clicks,conversions,cr,epc&{span()}&offer=17&partner=2&metric=clicks" in links
        assert any(link.startswith("/reports/conversions") and link.endswith("offer=17&partner=2&metric=revenue") for link in links)
        wanted = next(link for link in links if link.endswith("offer=17&partner=2&metric=conversions"))
        rows = await read(client, wanted)
        assert f"/clicks/{filled.ids[2].hex}" in rows
        assert filled.ids[3].hex not in rows
        clicks = await read(client, f"/reports/clicks?{span()}&partner=3&metric=clicks&limit=1")
        assert f"/clicks/{filled.ids[3].hex}" in clicks
        for bad in ("metric=epc", "limit=0", "cursor=zzz", "offer=x"):
            await read(client, f"/reports/clicks?{span()}&{bad}", 422)


async def test_a_row_opens_by_the_next_dimension(filled: Filled, data_dir: Path) -> None:
    """The row's values become filters; from one UTM source the other four parameters are one link away."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        page = unescape(await read(client, f"/reports?dimensions=utm_source&metrics=clicks&{span()}"))
        [opens] = set(re.findall(r'href="(/reports/open\?[^"]+)"', page))
        assert opens.endswith("&utm_source=")
        choices = unescape(await read(client, opens))
        others = f"/reports?dimensions=utm_medium,utm_campaign,utm_content,utm_term&metrics=clicks&{span()}&utm_source="
        assert f'href="{others}"' in choices
        assert "UTM source</a>" not in choices
        await read(client, others)


async def test_money_of_two_currencies_has_totals_of_each(filled: Filled, data_dir: Path) -> None:
    """The one total has no money, and a line for each currency has."""
    await add_hour(filled.url, today() - timedelta(days=40), offer_id=18, aff_id=3, currency="EUR", revenue=3, gross_clicks=5)
    await add_hour(filled.url, today() - timedelta(days=40), revenue=4, gross_clicks=5)
    day = f"{today() - timedelta(days=40):%Y-%m-%d}"
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        rows = rows_of(await read(client, f"/reports?dimensions=offer&metrics=clicks,revenue&from={day}&to={day}"))
        assert "Total, all currencies 10 —" in rows
        assert "Total EUR 5 3.00 EUR" in rows
        assert "Total USD 5 4.00 USD" in rows


async def test_reports_are_saved_opened_renamed_and_deleted_by_their_owner(filled: Filled, data_dir: Path) -> None:
    """A moving period is today's when it is opened; shared ones are for the network alone; others change nothing."""
    week = f"from={today() - timedelta(days=6):%Y-%m-%d}&to={today():%Y-%m-%d}"
    query = f"dimensions=offer&metrics=cr&{week}"
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        fields = {"query": query, "name": " The <week> ", "moving": "1", "shared": "1"}
        assert await send(client, "/reports/saved", fields, 303) == f"/reports?{query}"
        assert "Saved as “The &lt;week&gt;”" in await read(client, f"/reports?{query}")
        saved = await stored(filled.url, "SELECT report_id, query, moving FROM saved_reports")
        [(report_id, kept, moving)] = saved
        assert (kept, moving) == ("dimensions=offer&metrics=cr", "7d")
        await send(client, "/reports/saved", {"query": query, "name": "Fixed"}, 303)
        for bad in ({"name": "  "}, {"name": "x" * 101}, {"name": "y", "query": "metrics=nonsense"}):
            await send(client, "/reports/saved", {"query": query, **bad}, 422)
        text = await send(client, f"/reports/saved/{report_id}/rename", {"name": "Fixed"}, 422)
        assert "another report of yours is called" in text
        await send(client, f"/reports/saved/{report_id}/rename", {"name": "Mine", "shared": "1"}, 303)
        await log_in(client, "reports")
        assert "Mine" in await read(client, "/reports/saved")
        assert "Fixed" not in await read(client, "/reports/saved")
        answer = await client.get(f"/reports/saved/{report_id}", allow_redirects=False)
        assert answer.headers["Location"] == f"/reports?{query}"
        await send(client, f"/reports/saved/{report_id}/delete", {}, 404)
        await log_in(client, "partner")
        assert "Mine" not in await read(client, "/reports/saved")
        await read(client, f"/reports/saved/{report_id}", 404)
        await send(client, f"/reports/saved/{report_id}/rename", {"name": "Theirs"}, 404)
        await send(client, "/reports/saved", {"query": "partner=3", "name": "Theirs"}, 404)
        await log_in(client, "admin")
        await send(client, f"/reports/saved/{report_id}/delete", {}, 303)
        await read(client, f"/reports/saved/{report_id}", 404)
        for bad_id in ("0", "x", "99999999999"):
            await read(client, f"/reports/saved/{bad_id}", 404)


async def stored(url: str, query: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    conn = await connect(url)
    rows = await conn.fetch(query)
    await conn.close()
    return [tuple(row) for row in rows]


async def test_long_results_come_in_pages(filled: Filled, data_dir: Path) -> None:
    """`limit` and `cursor` as in the API, forth and back; more than a thousand rows stand on no page."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        query = f"dimensions=hour,partner&metrics=clicks&{span()}&limit=1"
        seen: list[str] = []
        url = f"/reports?{query}"
        while url:
            page = await read(client, url)
            seen.append(rows_of(page)[1])
            found = re.search(r'href="([^"]+)" id="next-page"', page)
            url = unescape(found[1]) if found else ""
        assert len(set(seen)) == len(seen) >= 3
        back = re.search(r'href="([^"]+)" id="previous-page"', page)
        assert back
        assert rows_of(await read(client, unescape(back[1])))[1] == seen[-2]
        assert "limit=100000" in await page_of(client, f"/reports?{span()}&limit=100000")
        await read(client, f"/reports?{span()}&limit=100001", 422)


async def page_of(client: Client, path: str) -> str:
    """The page's own address and text."""
    answer = await client.get(path)
    return str(answer.url) + await answer.text()


async def test_the_chart_has_every_day_and_the_time_before(filled: Filled, data_dir: Path) -> None:
    """Days without anything are nought, not left out; the other dimensions do not split it."""
    span = f"from={today() - timedelta(days=3):%Y-%m-%d}&to={today() - timedelta(days=1):%Y-%m-%d}"
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        answer = await client.get(f"/reports/chart.json?dimensions=offer,date&metrics=clicks,cr&{span}&compare=previous&offer=17")
        found = await answer.json()
        assert len(found["labels"]) == len(found["labels_before"]) == 3
        [series] = found["series"]
        assert series["now"] == {"clicks": [0, 32, 40], "cr": [None, 12.5, 10]}
        assert series["before"]["clicks"] == [0, 0, 0]
        assert await (await client.get(f"/reports/chart.json?dimensions=offer&{span}")).json() is None
        tomorrow = today() + timedelta(days=1)  # as it is there in the evening
        days = f"from={today() - timedelta(days=4):%Y-%m-%d}&to={tomorrow:%Y-%m-%d}&timezone=Asia/Kolkata"
        found = await (await client.get(f"/reports/chart.json?dimensions=hour&metrics=gross_clicks&offer=17&{days}")).json()
        total = await (await client.get(f"/reports/chart.json?dimensions=date&metrics=gross_clicks&offer=17&{days}")).json()
        counts = [sum(chart["series"][0]["now"]["gross_clicks"]) for chart in (found, total)]
        assert counts[0] == counts[1] > 0
