"""Imports, statements, exports and keys as people use them: a real browser on a running node."""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import CATALOG, Site
from tests.browser.people import PARTNER_KEY, REPORTS_KEY, admin_key, click_id_of, faults_of, fill, open_site, person

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(short_directory: Path) -> Iterator[Site]:
    """One node with three clicks and one conversion, for all tests of this file."""
    with open_site(short_directory / "books", CATALOG, fill) as site:
        yield site


async def sales_file(site: Site, path: Path, headers: str = "click_id;amount;date;order_id") -> Path:
    """Three rows of an advertiser's: one new, one unreadable, one new again."""
    click_id = await click_id_of(site, 3)
    other = (await site.row("SELECT click_id FROM clicks WHERE offer_id = 18"))["click_id"].hex
    when = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    rows = [f"{click_id};12,50;{when};A1", f"{click_id};many;{when};A2", f"{other};20,00;{when};A3"]
    path.write_text("\n".join([headers, *rows]) + "\n")
    return path


async def test_a_file_is_imported_after_a_look_and_a_rehearsal(site: Site, browser: Browser, tmp_path: Path) -> None:
    """Columns that nobody can guess are chosen; the dry run stores nothing; the import's rejects are a file."""
    path = await sales_file(site, tmp_path / "sales.csv", "Klick;Betrag;Wann;Beleg")
    async with person(site, browser, admin_key(site)) as page:
        await page.goto("/imports")
        await page.get_by_label("CSV file").set_input_files(path)
        await page.get_by_role("button", name="Send it").click()
        await page.wait_for_url("**/imports/drafts/*")
        await expect(page.get_by_role("alert")).to_contain_text("choose it below")
        for field, column in (
            ("transaction_id", "Klick"),
            ("amount", "Betrag"),
            ("datetime", "Wann"),
            ("adv_unique1", "Beleg"),
        ):
            await page.get_by_label(f"{field}: column").select_option(column)
        await expect(page.get_by_role("region", name="The first rows by field, table")).to_contain_text("12,50")
        await site.row("SELECT FROM conversions HAVING count(*) = 1")
        await page.get_by_role("button", name="Dry run").click()
        await page.wait_for_url(re.compile(r"/imports/\d+$"))
        await expect(page.locator("#run")).to_contain_text("would be imported", timeout=15_000)
        await expect(page.get_by_role("region", name="Examples, table")).to_contain_text("'many' is no amount")
        assert len(await site.node.fetch("SELECT FROM conversions")) == 1
        await page.get_by_role("button", name="Import it now").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Import ")
        await expect(page.locator("#run .tag.done")).to_be_visible(timeout=15_000)
        assert len(await site.node.fetch("SELECT FROM conversions")) == 3
        async with page.expect_download() as started:
            await page.get_by_role("link", name="Download the rejected rows").click()
        rejected = list(csv.DictReader(io.StringIO(Path(await (await started.value).path()).read_text())))
        assert [(row["line"], row["Beleg"]) for row in rejected] == [("3", "A2")]


async def test_a_new_keys_token_is_shown_once_and_ends_when_it_is_revoked(site: Site, browser: Browser) -> None:
    """The token opens the API until its key is revoked, and stands on no page afterwards."""
    async with person(site, browser, admin_key(site)) as page, aiohttp.ClientSession() as session:
        await page.goto("/keys")
        await page.get_by_label("Name").fill("Nightly export")
        await page.get_by_role("button", name="Make the key").click()
        token = (await page.locator("#token").inner_text()).strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(f"{site.node.admin}/api/v1/whoami", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        await page.goto("/keys")
        assert token not in await page.content()
        row = page.get_by_role("row", name="Nightly export")
        await row.get_by_text("Revoke …").click()
        await row.get_by_role("button", name="Revoke Nightly export for good").click()
        await expect(page.get_by_role("status").first).to_contain_text("is revoked")
        async with session.get(f"{site.node.admin}/api/v1/whoami", headers=headers) as answer:
            assert answer.status == 401


async def test_an_export_downloads_what_the_form_says(site: Site, browser: Browser) -> None:
    """Columns and filters as chosen, formulas defused; what cannot be is said above the form, nothing is downloaded."""
    async with person(site, browser, REPORTS_KEY) as page:
        await page.goto("/exports?what=clicks")
        await page.get_by_label("Offer", exact=True).select_option("17")
        await page.get_by_label("Format", exact=True).select_option("ndjson")
        async with page.expect_download() as started:
            await page.get_by_role("button", name="Download").click()
        rows = [json.loads(line) for line in Path(await (await started.value).path()).read_text().splitlines()]
        assert {row["offer_id"] for row in rows} == {17}
        assert len(rows) == 2
        await page.get_by_label("More filters, one a line").fill("planet=Mars")
        await page.get_by_role("button", name="Download").click()
        await expect(page.get_by_role("alert")).to_contain_text("planet")
        await expect(page.get_by_label("More filters, one a line")).to_have_value("planet=Mars")


async def test_a_month_is_closed_only_by_its_name(site: Site, browser: Browser) -> None:
    """The wrong name closes nothing; the right one does, and opens it again; the running month cannot be closed."""
    last = (datetime.now(UTC).replace(day=1) - timedelta(days=1)).replace(day=1)
    name = f"{last:%B %Y}"
    async with person(site, browser, admin_key(site)) as page:
        await page.goto("/statements")
        await page.get_by_label(f"Type “{name}”").fill("yes")
        await page.get_by_role("button", name="Close it").click()
        await expect(page.get_by_role("alert")).to_contain_text(f"Type {name}")
        await page.get_by_label(f"Type “{name}”").fill(name)
        await page.get_by_role("button", name="Close it").click()
        await expect(page.locator("main")).to_contain_text("is closed: its statements are final")
        await page.get_by_label(f"Type “{name}”").fill(f"{last:%Y-%m}")
        await page.get_by_role("button", name="Open it").click()
        await expect(page.locator("main")).to_contain_text("is open again")
        await page.goto(f"/statements?month={datetime.now(UTC):%Y-%m}")
        await expect(page.locator("main")).to_contain_text("It can be closed from")


async def test_a_partner_has_its_own_statement_and_export(site: Site, browser: Browser) -> None:
    """Neither revenue nor anybody else's; no imports and no keys. The page to print has one style and no script."""
    month = f"{datetime.now(UTC):%Y-%m}"
    async with person(site, browser, PARTNER_KEY) as page:
        await page.goto(f"/statements?month={month}")
        await expect(page.get_by_role("link", name="Deal Blog", exact=True)).to_be_visible()
        assert "Revenue" not in await page.locator("main").inner_text()
        await page.get_by_role("link", name="Deal Blog", exact=True).click()
        await expect(page.get_by_text("Payout due:")).to_be_visible()
        assert await page.evaluate("getComputedStyle(document.querySelector('.due')).fontWeight") == "700"
        await page.goto("/exports?what=conversions")
        assert "revenue" not in await page.locator("form.card").inner_text()
        for path in (
            "/imports",
            "/keys",
            f"/statements/partner/3/{month}",
            f"/statements/advertiser/1/{month}",
            "/exports?what=costs",
            "/exports/costs?from=2026-01-01",
        ):
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 404, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_books_are_accessible_and_fit_a_phone(
    site: Site, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    """axe finds no fault in any of their pages, nothing is wider than the screen."""
    path = await sales_file(site, tmp_path / "sales.csv")
    month = f"{datetime.now(UTC):%Y-%m}"
    faults = []
    async with person(site, browser, admin_key(site), phone=True) as page:
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.goto("/imports")
        await page.get_by_label("CSV file").set_input_files(path)
        await page.get_by_role("button", name="Send it").click()
        await page.wait_for_url("**/imports/drafts/*")
        faults += await check(page, scheme)
        await page.get_by_role("button", name="Dry run").click()
        await expect(page.locator("#run .tag.done")).to_be_visible(timeout=15_000)
        for place in (
            "",
            f"/statements?month={month}",
            f"/statements/partner/2/{month}",
            "/exports?what=reports",
            "/exports?what=clicks",
            "/keys",
            "/imports",
        ):
            if place:
                await page.goto(place)
            faults += await check(page, scheme)
    assert faults == []


async def check(page: Page, scheme: str) -> list[str]:
    """What is wrong with the page that is shown."""
    faults = await faults_of(page, page.url, scheme)
    if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
        faults.append(f"{page.url} is wider than the screen")
    return faults
