"""A manager's day at the console in a real browser, from the log-in to the log-out, without a mouse."""

import csv
import io
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, Download, Page, expect

from tests.browser.conftest import CATALOG, Site
from tests.browser.people import admin_key, click, convert, open_site, person
from tests.postgres.api import bearer

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(180)]

AGENT = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"}
PENDING = "&status=pending"


@pytest.fixture(scope="module")
def day(short_directory: Path) -> Iterator["Day"]:
    """A node with six clicks: two converted, two whose conversions wait for somebody, two not converted."""
    day = Day()
    with open_site(short_directory / "day", CATALOG, day.fill):
        yield day


class Day:
    """What happened before the manager came: the clicks' ids, in order."""

    site: Site
    clicks: list[str]

    async def fill(self, site: Site) -> None:
        """Clicks of two partners, and the advertiser's postbacks."""
        self.site = site
        self.clicks = await click(site, [f"offer_id=17&aff_id={2 + number % 2}&utm_source=mail" for number in range(6)])
        await convert(site, [f"{one}&amount=50{PENDING if n > 1 else ''}" for n, one in enumerate(self.clicks[:4])])


class Hands:
    """Ten fingers on a keyboard."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.press = page.keyboard.press
        self.type = page.keyboard.type

    async def go(self, letter: str, path: str) -> None:
        """Open a page by its letter, out of whatever field the focus is in."""
        await self.press("Escape")
        await self.press("g")
        await self.press(letter)
        await self.page.wait_for_url(lambda url: urlsplit(url).path == path)

    async def tab_to(self, named: str) -> None:
        """Press Tab until the focus is on what is named so, or has that id."""
        for _ in range(120):
            await self.press("Tab")
            if named in await self.page.evaluate(
                "(e => [e.id, e.name, e.value, e.getAttribute('aria-label'), e.textContent.trim()])(document.activeElement)"
            ):
                return
        raise AssertionError(f"no way by keys to {named}")

    async def pick(self, wanted: str) -> None:
        """In the list that has the focus: down to that value."""
        for _ in range(120):
            if await self.page.evaluate("document.activeElement.value") == wanted:
                return
            await self.press("ArrowDown")
        raise AssertionError(f"there is no {wanted} to pick")

    async def enter(self, named: str) -> None:
        """Press what is named so."""
        await self.tab_to(named)
        await self.press("Enter")

    async def download(self, named: str) -> str:
        """The text of the file that is named so."""
        await self.tab_to(named)
        async with self.page.expect_download() as started:
            await self.press("Enter")
        found: Download = await started.value
        return Path(await found.path()).read_text()


@pytest.fixture
async def hands(day: Day, browser: Browser) -> AsyncIterator[Hands]:
    """The manager's, at a log-in page; an error in the browser fails the test."""
    async with person(day.site, browser) as page:
        page.on("filechooser", lambda _: None)  # from now on: asked for in the same moment, it may come too late
        await page.goto("/login")
        yield Hands(page)


async def test_a_managers_day_by_keys_alone(day: Day, hands: Hands, tmp_path: Path) -> None:
    """Look, report, decide, explain, build, test, import, export, print; the figures agree with the API all along."""
    page = hands.page
    await expect(page.get_by_label("API key")).to_be_focused()  # a frame after the page is there
    await hands.type(admin_key(day.site))
    await hands.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await expect(page.locator("#figures")).to_contain_text("Conversions")
    await make_report(hands)
    assert await figures_of(page) == {("17", "2"): ("3", "1"), ("17", "3"): ("3", "1")}
    await drill_down(hands)
    await approve_the_pending(hands)
    await explain(hands, day.clicks[0])
    await build_and_follow(day, hands)
    await try_a_postback(hands, day.clicks[4])
    await import_sales(day, hands, tmp_path)
    await make_report(hands)
    assert await figures_of(page) == {("17", "2"): ("3", "3"), ("17", "3"): ("3", "2"), ("18", "3"): ("1", "0")}
    await export_and_compare(day, hands)
    await print_statement(hands)
    await hands.enter("Log out")
    await expect(page.get_by_label("API key")).to_be_visible()
    assert day.site.node.pids("admin")


async def make_report(hands: Hands) -> None:
    """By offer and partner, compared with the time before."""
    await hands.go("r", "/reports")
    await hands.tab_to("dimension-1")
    await hands.pick("offer")
    await hands.press("Tab")
    await hands.pick("partner")
    await hands.tab_to("compare")
    await hands.press("Space")
    await hands.press("Enter")
    await hands.page.wait_for_url("**dimensions=offer,partner**compare=previous**")
    await expect(hands.page.locator(".report tbody tr").first).to_contain_text("Holiday decor")


async def figures_of(page: Page) -> dict[tuple[str, str], tuple[str, str]]:
    """Gross clicks and conversions that the report shows, by the ids of offer and partner."""
    found = {}
    heads = [" ".join(one.split()) for one in await page.locator(".report thead th").all_inner_texts()]
    places = [next(n for n, head in enumerate(heads) if head.startswith(name)) for name in ("Gross clicks", "Conversions")]
    for row in await page.locator(".report tbody tr").all():
        ids = await row.locator(".id").all_inner_texts()
        cells = await row.locator("th, td").all_inner_texts()
        shown = [cells[place].split()[0] for place in places]
        found[ids[0], ids[1]] = (shown[0], shown[1])
    return found


async def drill_down(hands: Hands) -> None:
    """From a figure to the conversions behind it, and to the story of one's click."""
    page = hands.page
    for _ in range(150):
        await hands.press("Tab")
        where = await page.evaluate("document.activeElement.getAttribute('href') || ''")
        if where.startswith("/reports/conversions") and "metric=conversions" in where:
            break
    await hands.press("Enter")
    await page.wait_for_url("**/reports/conversions?**")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def approve_the_pending(hands: Hands) -> None:
    """The two that wait, both at once; what it changes is shown before."""
    page = hands.page
    await hands.go("v", "/conversions")
    await hands.enter("Filters")
    await hands.tab_to("pending")
    await hands.press("Space")
    await hands.press("Enter")
    await page.wait_for_url("**status=pending**")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await hands.press("*")
    await hands.press("a")
    await expect(page.locator(".effect")).to_contain_text("2 of 2 would be approved")
    await hands.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("2 conversions approved")


async def explain(hands: Hands, click_id: str) -> None:
    """The id of a click that somebody asked about, and its story."""
    await hands.go("c", "/clicks")
    await hands.press("/")
    await hands.type(click_id)
    await hands.press("Enter")
    await hands.page.wait_for_url(f"**/clicks/{click_id}")
    await expect(hands.page.locator(".story > li")).not_to_have_count(0)
    await expect(hands.page.locator(".story")).to_contain_text("approved")


async def build_and_follow(day: Day, hands: Hands) -> None:
    """A link for the offer and partner that are picked; followed, it is a click."""
    await hands.go("l", "/links")
    await hands.press("/")
    await hands.pick("18")
    await hands.tab_to("aff_id")
    await hands.pick("3")
    await hands.tab_to("utm_campaign")
    await hands.type("built by keys")
    await expect(hands.page.locator("#link")).to_contain_text("utm_campaign=built+by+keys")
    link = await hands.page.locator("#link").inner_text()
    async with aiohttp.ClientSession(headers=AGENT) as session, session.get(link, allow_redirects=False) as answer:
        assert answer.status == 302
    await day.site.row("SELECT FROM clicks WHERE offer_id = 18 AND aff_id = 3 AND utm_campaign = 'built by keys'")


async def try_a_postback(hands: Hands, click_id: str) -> None:
    """What the advertiser's postback would come to; nothing is recorded."""
    await hands.go("b", "/postbacks")
    await hands.enter("Try a postback")
    await hands.page.wait_for_url("**/postbacks/test")
    await hands.tab_to("url")
    await hands.type(f"/aff_lsr?transaction_id={click_id}&amount=10")
    await hands.press("Enter")
    await expect(hands.page.locator("#result")).to_contain_text("it would be stored as")


async def import_sales(day: Day, hands: Hands, folder: Path) -> None:
    """Two rows, one of them refused: looked at, imported with progress, the refused one fetched."""
    page, when = hands.page, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    path = folder / "sales.csv"
    path.write_text(f"click_id,amount,date\n{day.clicks[4]},99.00,{when}\n{day.clicks[5]},lots,{when}\n")
    await hands.go("i", "/imports")
    await hands.tab_to("file")
    async with page.expect_file_chooser() as chosen:
        await hands.press("Enter")
    await (await chosen.value).set_files(path)
    await hands.enter("Send it")
    await page.wait_for_url("**/imports/drafts/*")
    await hands.enter("Dry run")
    await expect(page.locator("#run")).to_contain_text("would be imported", timeout=20_000)
    await expect(page.locator("#run .tag.done")).to_be_visible(timeout=20_000)
    await hands.enter("Import it now")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Import ")
    await expect(page.locator("#run .tag.done")).to_be_visible(timeout=20_000)
    rejected = list(csv.DictReader(io.StringIO(await hands.download("Download the rejected rows"))))
    assert [(row["line"], row["click_id"], row["amount"]) for row in rejected] == [("3", day.clicks[5], "lots")]


async def export_and_compare(day: Day, hands: Hands) -> None:
    """The file has what the API answers to the same question."""
    text = await hands.download("CSV")
    query = hands.page.url.partition("?")[2]
    url = f"{day.site.node.admin}/api/v1/reports?{query}"
    async with aiohttp.ClientSession(headers=bearer(admin_key(day.site))) as session, session.get(url) as answer:
        report = await answer.json()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(report["data"]) == 3
    wanted = {tuple(map(str, one["dimensions"].values())): one["metrics"] for one in report["data"]}
    for row in rows:
        theirs = wanted[row["offer"], row["partner"]]
        for name in ("gross_clicks", "conversions", "payout", "revenue"):
            assert float(row[name]) == float(theirs[name]), (name, row)


async def print_statement(hands: Hands) -> None:
    """This month's, preliminary, of the first partner: as it is printed, on white paper."""
    page, month = hands.page, f"{datetime.now(UTC):%B %Y}"
    await hands.go("s", "/statements")
    await hands.press("/")
    await hands.press("Home")
    await hands.pick(f"{datetime.now(UTC):%Y-%m}")
    await hands.enter("Show")
    await page.wait_for_url(f"**month={datetime.now(UTC):%Y-%m}**")
    await hands.enter("Deal Blog")
    await expect(page.locator("h1")).to_have_text(f"Statement for {month}")
    await expect(page.locator(".state")).to_contain_text("Preliminary")
    await expect(page.locator(".due")).to_have_text("Payout due: 15.00 USD")
    assert (await page.pdf()).startswith(b"%PDF")
    await page.go_back()
