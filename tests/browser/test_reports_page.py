"""Reports as people make them: a real browser on a running node."""

import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import CATALOG, Site
from tests.browser.people import admin_key, click, convert, faults_of, open_site, person
from tests.postgres.api import add_key, bearer

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(120)]

HOSTILE = "<script>document.title='taken'</script>"
CLICKS = (
    "offer_id=17&aff_id=2&utm_source=mail&utm_campaign=november",
    "offer_id=17&aff_id=2&utm_source=mail&utm_campaign=december",
    "offer_id=17&aff_id=3&utm_source=" + HOSTILE,
    "offer_id=18&aff_id=2&utm_source=mail&utm_campaign=november",
)
READER_KEY = "ce_reader-of-the-tests"


@pytest.fixture(scope="module")
def site(short_directory: Path) -> Iterator[Site]:
    """One node with four clicks, two of them converted, for all tests of this file."""
    with open_site(short_directory / "reports", CATALOG, fill) as site:
        yield site


async def fill(site: Site) -> None:
    """The clicks, a conversion of each of partner 2's first two, and another person's key."""
    ids = await click(site, CLICKS)
    await convert(site, [f"{transaction_id}&amount=50" for transaction_id in ids[:2]])
    await add_key(site.node.database_url, READER_KEY, "reports")


async def texts_of(page: Page, row: int) -> list[str]:
    """The cells of a row of the report's body."""
    cells = await page.locator(".report tbody tr").nth(row).locator("th, td").all_inner_texts()
    return [" ".join(cell.split()) for cell in cells]


async def tab_to(page: Page, anchor: str) -> None:
    """Press Tab until the focus is on the element of that id."""
    for _ in range(90):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == anchor:
            return
    raise AssertionError(f"no way by keys to {anchor}")


async def test_a_report_is_built_by_keys_alone(site: Site, browser: Browser) -> None:
    """Dimensions are picked, compared, sorted and opened without a mouse; the page is not loaded again."""
    async with person(site, browser, admin_key(site)) as page:
        await page.keyboard.press("g")
        await page.keyboard.press("r")
        await page.wait_for_url("**/reports?dimensions=date")
        await page.evaluate("window.isSamePage = true")
        await tab_to(page, "dimension-1")
        await page.keyboard.type("Offer")
        await page.keyboard.press("Tab")
        await page.keyboard.type("Partner")
        await tab_to(page, "compare")
        await page.keyboard.press("Space")
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile(r"/reports\?dimensions=offer,partner&from=[\d-]+&to=[\d-]+&compare=previous$"))
        await expect(page.locator("#said")).to_have_text("3 rows")
        await expect(page.locator("#compare")).to_be_focused()
        await tab_to(page, "sort-partner")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**sort=partner")
        await expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Partner")
        while not (await page.evaluate("document.activeElement.textContent")).startswith("Open by"):
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert await page.evaluate("window.isSamePage")
        await page.go_back()
        await expect(page.locator("th[aria-sort]")).not_to_contain_text("Partner")


async def test_a_figure_is_followed_from_a_row_to_its_click(site: Site, browser: Browser) -> None:
    """One click filters by a row, another opens it by other parameters, a third shows the rows, a fourth the click."""
    async with person(site, browser, admin_key(site)) as page:
        await page.goto("/reports?dimensions=utm_source&metrics=gross_clicks,conversions,cr")
        assert await texts_of(page, 0) == ["mail", "3", "2", "66.67 %", "Open by…"]
        assert (await texts_of(page, 1))[0] == HOSTILE
        await page.locator(".report").get_by_role("link", name="mail", exact=True).click()
        await page.wait_for_url("**utm_source=mail")
        await expect(page.get_by_role("list", name="Filters")).to_contain_text("mail")
        await expect(page.locator(".report tbody tr")).to_have_count(1)
        await page.get_by_role("link", name="Open mail by another dimension").click()
        await page.get_by_role("dialog").get_by_role("link", name="UTM medium, UTM campaign, UTM content, UTM term").click()
        await page.wait_for_url("**dimensions=utm_medium,utm_campaign,**")
        await expect(page.locator(".report tbody tr")).to_have_count(2)
        november = page.get_by_role("row").filter(has_text="november")
        assert (await november.inner_text()).split()[4:7] == ["2", "1", "50.00"]
        await november.locator("a.figure-link").nth(1).click()
        await page.wait_for_url("**/reports/conversions?**metric=conversions")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("tbody")).to_contain_text("50.00")
        await page.locator("tbody a").first.click()
        await page.wait_for_url(re.compile("/clicks/[0-9a-f]{32}$"))
        await page.goto("/reports/conversions?metric=conversions")
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.go_back()
        await page.go_back()
        await page.get_by_role("link", name="The report").click()
        await page.get_by_role("link", name="Remove the filter UTM source: mail").click()
        await page.wait_for_url(lambda url: "utm_source=mail" not in url)
        await expect(page.locator("#chart")).to_have_count(0)


async def test_a_report_is_saved_opened_again_and_shared_by_its_url(site: Site, browser: Browser) -> None:
    """Under its name it comes back with today's dates; whoever gets the URL logs in and sees the same figures."""
    async with person(site, browser, admin_key(site)) as page:
        await page.goto("/reports?dimensions=date&metrics=gross_clicks,conversions")
        await page.get_by_label("Filter by").select_option("partner")
        await page.get_by_label("Is (empty: none)").fill("2")
        await page.get_by_role("button", name="30 days").click()
        await page.wait_for_url("**partner=2")
        await expect(page.get_by_role("button", name="30 days")).to_have_attribute("aria-pressed", "true")
        await expect(page.get_by_role("list", name="Filters")).to_contain_text("Deal Blog")
        await expect(page.locator("#chart canvas")).to_be_visible()
        await page.get_by_label("Figure", exact=True).select_option("conversions")
        await expect(page.locator(".u-legend")).to_contain_text("Conversions")
        await page.locator("#save-name").fill("Deal Blog's month")
        await page.get_by_label("share with").check()
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.get_by_role("heading", name="Saved as “Deal Blog's month”")).to_be_visible()
        url, figures = page.url, await texts_of(page, 0)
        assert figures[1:3] == ["3", "2"]
    async with person(site, browser) as page:
        await page.goto(url)
        await page.get_by_label("API key").fill(READER_KEY)
        await page.keyboard.press("Enter")
        await page.wait_for_url(url)
        assert await texts_of(page, 0) == figures
        await page.get_by_role("link", name="Saved reports").click()
        await page.get_by_role("link", name="Deal Blog's month").click()
        await page.wait_for_url(url)
        assert await texts_of(page, 0) == figures


async def test_an_export_is_the_apis_own_file(site: Site, browser: Browser, tmp_path: Path) -> None:
    """The button's CSV has the bytes that the API answers the same parameters with."""
    query = "dimensions=offer,utm_source&metrics=gross_clicks,conversions,amount"
    async with person(site, browser, admin_key(site)) as page:
        await page.goto(f"/reports?{query}")
        async with page.expect_download() as started:
            await page.get_by_role("link", name="CSV", exact=True).click()
        download = await started.value
        await download.save_as(tmp_path / "report.csv")
        assert download.suggested_filename.endswith(".csv")
    url = f"{site.node.admin}/api/v1/exports/reports?{query}&format=csv"
    async with aiohttp.ClientSession(headers=bearer(admin_key(site))) as session, session.get(url) as answer:
        theirs = await answer.read()
    assert (tmp_path / "report.csv").read_bytes() == theirs
    assert theirs.count(b"\n") == 4


async def test_what_is_wrong_is_told_beside_its_field_without_a_reload(site: Site, browser: Browser) -> None:
    """The fault is announced, the rest of the form stays as it was typed."""
    async with person(site, browser, READER_KEY) as page:
        await page.goto("/reports?dimensions=offer")
        await page.get_by_label("time zone").fill("Mars/Olympus")
        await page.get_by_label("compare with").check()
        await page.get_by_role("button", name="Show", exact=True).click()
        await expect(page.locator("#fault-timezone")).to_contain_text("is no time zone")
        await expect(page.get_by_label("time zone")).to_have_value("Mars/Olympus")
        await expect(page.get_by_label("compare with")).to_be_checked()
        await page.get_by_label("time zone").fill("Europe/Berlin")
        await page.keyboard.press("Enter")
        await expect(page.locator("#result")).to_contain_text("Europe/Berlin")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_reports_are_accessible_and_fit_a_phone(site: Site, browser: Browser, scheme: str) -> None:
    """axe finds no fault in form, result, dialog, rows and saved ones; only the table scrolls sideways."""
    paths = ["/reports?dimensions=date,offer,partner&compare=previous", "/reports?metrics=banana&offer=x&from=no"]
    paths += ["/reports/conversions?metric=conversions", "/reports/clicks?offer=17", "/reports/contacts", "/reports/saved"]
    paths += ["/reports/open?dimensions=offer&offer=17"]
    faults = []
    async with person(site, browser, admin_key(site), phone=True) as page:
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for path in paths if scheme == "light" else paths[:3]:
            await page.goto(path)
            if "date" in path:
                await page.get_by_role("link", name=re.compile("^Open ")).first.click()
                await expect(page.get_by_role("dialog")).to_be_visible()
                faults += await faults_of(page, f"{path} with its dialog", scheme)
                await page.get_by_role("button", name="Close").last.click()
                await page.get_by_role("button", name="Change").click()
            faults += await faults_of(page, path, scheme)
            if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                faults.append(f"{path} is wider than the screen")
    assert faults == []


