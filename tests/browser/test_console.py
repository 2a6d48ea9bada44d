"""The console as people use it: a real browser on a running node."""

import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from edge.admin.console import PAGES
from tests.browser.conftest import CATALOG, Site
from tests.browser.people import (
    HOSTILE,
    PARTNER_KEY,
    REPORTS_KEY,
    admin_key,
    click_id_of,
    faults_of,
    fill,
    log_in,
    open_site,
    person,
)

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(short_directory: Path) -> Iterator[Site]:
    """One node with a few clicks and conversions, for all tests of this file."""
    paused = '[[offers]]\nid = 21\nadvertiser_id = 1\nname = "Paused"\nurl = "http://localhost/"\nstatus = "paused"\n'
    catalog = CATALOG.replace("Coupon Corner", HOSTILE) + paused
    with open_site(short_directory / "console", catalog, fill) as site:
        yield site


async def test_a_wrong_key_stays_outside_and_a_right_one_comes_to_the_page_that_was_asked_for(
    site: Site, browser: Browser
) -> None:
    """The fault is told in words, the cookie is out of scripts' reach, and after logging out the way is closed again."""
    async with person(site, browser) as page:
        await page.goto("/offers?q=holiday")
        await page.get_by_label("API key").fill("ce_wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("No such key")
        await page.get_by_label("API key").fill(admin_key(site))
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/offers?q=holiday")
        await expect(page.get_by_role("link", name="Holiday decor")).to_be_visible()
        assert "clickedge_session" not in await page.evaluate("document.cookie")
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url("**/login")
        await page.goto("/offers")
        await expect(page.get_by_label("API key")).to_be_visible()


async def test_everything_is_reached_by_keys_alone(site: Site, browser: Browser) -> None:
    """Log in, open pages by letters, search, edit, review and store: no mouse. The help lists every letter."""
    async with person(site, browser) as page:
        await page.goto("/login")
        await expect(page.get_by_label("API key")).to_be_focused()  # a frame after the page is there
        await page.keyboard.type(admin_key(site))  # the field has the focus
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("?")
        for shown in PAGES:
            await expect(page.get_by_role("dialog").get_by_role("definition").get_by_text(shown.title, exact=True)).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("g")
        await page.keyboard.press("f")
        await page.wait_for_url("**/offers")
        await page.keyboard.press("/")
        await page.keyboard.type("paus")
        await expect(page.get_by_role("row")).to_have_count(2)
        await page.keyboard.press("Escape")
        await tab_to(page, "Paused")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/offers/21")
        await tab_to(page, "Edit")
        await page.keyboard.press("Enter")
        await page.get_by_label("Payout", exact=True).focus()
        await page.keyboard.press("Control+a")
        await page.keyboard.type("2.75")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("offers[21].payout: 0 -> 2.75")).to_be_visible()
        await page.keyboard.press("Enter")  # the button to store has the focus
        await expect(page.get_by_role("status").first).to_contain_text("Stored as catalog revision")


async def tab_to(page: Page, text: str) -> None:
    """Press Tab until the focus is on what is named so."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"no way by keys to {text}")


async def test_a_partner_sees_its_own_figures_and_no_revenue(site: Site, browser: Browser) -> None:
    """Its clicks and earnings, no other partner's name, no page about others, and no figure of ours."""
    theirs = await click_id_of(site, 3)
    async with person(site, browser, PARTNER_KEY) as page:
        await expect(page.get_by_text("Earnings", exact=True).first).to_be_visible()
        pages = await page.get_by_role("navigation").get_by_role("link").all_inner_texts()
        assert "Partners" not in " ".join(pages)
        for path in ("/", "/offers", "/offers/17", "/clicks", "/postbacks", "/links?offer_id=17"):
            await page.goto(path)
            text = await page.locator("main").inner_text()
            assert "Revenue" not in text, path
            assert "alert(1)" not in text, path
        for path in ("/partners", "/partners/3", "/advertisers", "/health", f"/clicks/{theirs}"):
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 404, path


async def test_names_and_parameters_with_scripts_are_shown_as_text(site: Site, browser: Browser) -> None:
    """Wherever a name or a click's parameter stands, nothing of it runs; titles stay ours."""
    click_id = await click_id_of(site, 3)
    async with person(site, browser, admin_key(site)) as page:
        for path in ("/", "/partners", "/partners/3", "/partners/3/edit", "/clicks", f"/clicks/{click_id}"):
            await page.goto(path)
            await expect(page).to_have_title(re.compile("ClickEdge$"))
            assert await page.locator("main script, main img").count() == 0, path
        assert HOSTILE in await page.locator("main").inner_text()


async def test_the_overview_follows_what_comes_in(site: Site, browser: Browser) -> None:
    """A click shows within seconds without a reload, and the chart has its numbers as a table too."""
    async with person(site, browser, REPORTS_KEY) as page:
        await expect(page.locator("#chart canvas")).to_be_visible()
        await page.get_by_text("As a table").click()
        await expect(page.locator("#chart-table tbody tr")).to_have_count(24)
        before = await page.locator("#live section").first.locator("tbody tr").count()
        async with aiohttp.ClientSession() as session:
            await session.get(f"{site.edge}/aff_c?offer_id=18&aff_id=2&source=fresh", allow_redirects=False)
        await expect(page.locator("#live section").first.locator("tbody tr")).to_have_count(before + 1, timeout=10_000)
        await expect(page.locator("#live tr.fresh")).to_have_count(1)


async def test_the_overview_has_room_for_what_became_of_a_click_and_for_its_legend(site: Site, browser: Browser) -> None:
    """Long names leave the outcome on the screen of a desk; on a phone the chart's legend ends above what follows it."""
    async with person(site, browser, REPORTS_KEY) as page:
        table = await page.get_by_role("region", name="Latest clicks, table").bounding_box()
        outcome = await page.locator("#live section").first.locator("tbody .tag").first.bounding_box()
        assert table is not None
        assert outcome is not None
        assert outcome["x"] + outcome["width"] <= table["x"] + table["width"]
    async with person(site, browser, REPORTS_KEY, phone=True) as page:
        await expect(page.locator("#chart canvas")).to_be_visible()
        legend, following = await page.locator(".u-legend").bounding_box(), await page.locator(".numbers").bounding_box()
        assert legend is not None
        assert following is not None
        assert legend["y"] + legend["height"] <= following["y"]


async def test_the_link_that_was_built_works(site: Site, browser: Browser) -> None:
    """Fields become a link while one types; followed, it is a click of that offer and partner with those parameters."""
    async with person(site, browser, admin_key(site)) as page:
        await page.goto("/links")
        await page.get_by_label("Offer").select_option("18")
        await page.get_by_label("Partner", exact=True).select_option("2")
        await page.get_by_label("Sub 1").fill("a & b=ü")
        await page.get_by_label("UTM campaign").fill("built")
        await expect(page.locator("#link")).to_contain_text("utm_campaign=built")
        await expect(page.locator(".qr svg")).to_be_visible()
        link = await page.locator("#link").inner_text()
        assert "utm_campaign=built" in page.url
        async with aiohttp.ClientSession() as session, session.get(link, allow_redirects=False) as answer:
            assert answer.status == 302
        row = await site.row("SELECT offer_id, aff_id, aff_sub1 FROM clicks WHERE utm_campaign = 'built'")
        assert tuple(row) == (18, 2, "a & b=ü")


async def test_the_theme_is_the_persons_choice_and_stays(site: Site, browser: Browser) -> None:
    """`t` toggles it, and the next page comes in it at once."""
    async with person(site, browser, REPORTS_KEY) as page:
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.keyboard.press("t")
        await page.goto("/offers")
        assert await page.locator("html").get_attribute("data-theme") == "dark"
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != light


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible_and_fits_a_phone(site: Site, browser: Browser, scheme: str) -> None:
    """axe finds no fault in it, in light and dark, and nothing is wider than the screen."""
    click_id = await click_id_of(site, 2)
    more = ["/offers/17", "/offers/17/edit", "/partners/3/edit?as=text", f"/clicks/{click_id}", "/postbacks/test"]
    more += ["/links?offer_id=17&aff_id=2", "/offers/new", "/offers/17/archive", "/nowhere-such-page"]
    faults = []
    async with person(site, browser, phone=True) as page:
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.goto("/login")
        faults += await faults_of(page, "/login", scheme)
        await log_in(page, admin_key(site))
        for path in [*(shown.path for shown in PAGES), *more]:
            await page.goto(path)
            faults += await faults_of(page, path, scheme)
            if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                faults.append(f"{path} is wider than the screen")
    assert faults == []
