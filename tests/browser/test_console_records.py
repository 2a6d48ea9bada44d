"""Conversions, contacts and cohorts in the console as people use them: a real browser on a real database."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from storage.postgres.connection import connect
from storage.postgres.contacts import ContactRow, upsert_contacts
from tests.conftest import Server, fresh_database
from tests.postgres.api import add_key
from tests.postgres.consoles import open_console
from tests.postgres.drains import Bench, now_ms, open_bench
from tests.recount import differences

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(120)]

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
DAY_MS = 86_400_000
MORE = f"""
[[partners]]
id = 3
name = "{HOSTILE}"
postback_url = "https://partner.example/pb?cid={{aff_click_id}}"
[[offers]]
id = 20
advertiser_id = 1
name = "By hand"
url = "https://shop.example.com/?clickid={{transaction_id}}"
payout = "5.00"
revenue = "7.50"
approval = "manual"
click_window = "120d"
"""
HARMLESS = ("Failed to load resource",)  # what the browser says of a status that the page itself explains


class Desk:
    """Where the console is, and the database behind it."""

    def __init__(self, url: str, origin: str) -> None:
        self.url = url
        self.origin = origin

    async def value(self, query: str) -> object:
        """The one value of a query."""
        conn = await connect(self.url)
        try:
            return await conn.fetchval(query)
        finally:
            await conn.close()


async def fill(bench: Bench) -> None:
    """Four pending conversions, a duplicate that was refused, and others of contacts that came in two months."""
    revision = await bench.apply(MORE)
    scribe, later = bench.scribe(revision=revision), bench.scribe(worker=1, revision=revision)
    for days in (100, 99, 40, 39):
        contact = f"p{days}" if days != 39 else HOSTILE
        old = scribe.click(ms=now_ms() - days * DAY_MS, aff_id=2, offer_id=20, contact_id=contact, params={"utm_source": "mail"})
        later.convert(old, ms=now_ms() - (days - 3) * DAY_MS, amount="30.00", adv_sub1="old")
    for aff_id in (2, 2, 3, 3):
        made = scribe.click(aff_id=aff_id, offer_id=20, params={"aff_click_id": "c"})
        later.convert(made, amount="49.90", conversion_unique_id=f"order-{len(later.written)}", adv_sub1=HOSTILE)
    twice = scribe.click(aff_id=3)
    for _ in range(2):
        later.convert(twice, amount="10.00")
    await bench.drain()
    [first] = [row[0] for row in await bench.rows("SELECT conversion_id FROM conversions WHERE contact_id = 'p100'")]
    await change_conversion(bench.conn, CatalogHistory(), first, Wanted("approved"), actor="test")
    await upsert_contacts(bench.conn, [ContactRow("imported", "news", datetime.now(UTC))])
    for token, scope, ids in (("boss", "admin", {}), ("p2", "partner", {"aff_id": 2}), ("looker", "reports", {})):
        await add_key(bench.url, token, scope, **ids)


async def make(url: str, home: Path) -> None:
    """Everything, in an empty database."""
    async with open_bench(home, url) as bench:
        await fill(bench)


@pytest.fixture(scope="module")
def filled(embedded_server: Server, short_directory: Path) -> Iterator[str]:
    """A database for the tests that only look."""
    for url in fresh_database(embedded_server):
        asyncio.run(make(url, short_directory / uuid.uuid4().hex[:8]))
        yield url


@pytest.fixture
async def shown(filled: str, data_dir: Path) -> AsyncIterator[Desk]:
    """A console for looking."""
    async with open_console(filled, data_dir) as client:
        yield Desk(filled, str(client.make_url("/")).rstrip("/"))


@pytest.fixture
async def desk(database: str, short_directory: Path) -> AsyncIterator[Desk]:
    """A console on a database of its own, for what changes something."""
    home = short_directory / uuid.uuid4().hex[:8]
    await make(database, home / "bench")
    async with open_console(database, home / "console") as client:
        yield Desk(database, str(client.make_url("/")).rstrip("/"))


@asynccontextmanager
async def person(desk: Desk, browser: Browser, key: str, *, phone: bool = False, script: bool = True) -> AsyncIterator[Page]:
    """Somebody who is logged in; an error or a broken policy in their browser fails the test."""
    size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
    context = await browser.new_context(viewport=size, base_url=desk.origin, java_script_enabled=script)  # type: ignore[arg-type]
    page = await context.new_page()
    page.set_default_timeout(10_000)
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(HARMLESS):
            wrong.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    await page.goto("/login")
    await page.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: "/login" not in url)
    yield page
    await context.close()
    assert wrong == []


async def test_many_are_approved_by_keys_alone_and_a_refused_one_says_why(desk: Desk, browser: Browser) -> None:
    """The page before says what will change and the money; roll-ups follow; what cannot be is left as it was."""
    before = await desk.value("SELECT coalesce(sum(revenue), 0) FROM stats_hourly")
    async with person(desk, browser, "boss") as page:
        await page.goto("/conversions?offer=20&offer=17&from=2000-01-02")
        await expect(page.get_by_role("button", name="Approve")).to_be_disabled()
        for _ in range(6):
            await page.keyboard.press("j")
            await page.keyboard.press("x")
        await expect(page.locator("#count")).to_have_text("6 selected:")
        await page.keyboard.press("a")
        await page.wait_for_url("**/conversions/review")
        effect = page.locator(".effect")
        await expect(effect).to_contain_text("5 of 6 would be approved, 1 cannot be")
        await expect(effect).to_contain_text("+37.50")
        assert await desk.value("SELECT count(*) FROM conversions WHERE status = 'approved' AND offer_id = 20 AND contact_id = ''") == 0
        await page.keyboard.press("Enter")  # the button has the focus
        await expect(page.get_by_role("heading", level=1)).to_have_text("5 of 6 changed")
        await expect(page.get_by_role("region", name="Not changed, table")).to_contain_text("it is approved already")
        assert await faults_of(page, "changed") == []
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/conversions?offer=20&offer=17&from=2000-01-02")
    assert await desk.value("SELECT coalesce(sum(revenue), 0) FROM stats_hourly") == before + Decimal("37.5")  # type: ignore[operator]
    conn = await connect(desk.url)
    assert await differences(conn) == []
    await conn.close()


async def test_one_is_adjusted_after_the_sum_was_seen(desk: Desk, browser: Browser) -> None:
    """A wrong amount is told beside its field, a sum that was not shown is shown first; the timeline tells who and why."""
    conversion = await desk.value("SELECT conversion_id::text FROM conversions WHERE status = 'approved' AND offer_id = 17")
    async with person(desk, browser, "boss") as page:
        await page.goto(f"/conversions/{conversion}")
        await page.get_by_role("button", name="Adjust").click()
        await page.get_by_label("New payout").fill("six")
        await page.get_by_label("Reason").select_option("agreed_correction")
        await page.get_by_label("Note").fill(HOSTILE)
        await page.get_by_role("button", name="Show what changes").click()
        await expect(page.locator("#payout-fault")).to_contain_text("write it like 12.50")
        await page.get_by_label("New payout").fill("6,250")
        await page.get_by_role("button", name="Show what changes").click()
        await expect(page.locator("#payout-fault")).to_contain_text("could be two amounts")
        await page.get_by_label("New payout").fill("6.25")
        await page.get_by_role("button", name="Show what changes").click()
        await expect(page.locator(".effect")).to_contain_text("+0.25")
        await page.get_by_label("New payout").fill("7.00")
        await page.get_by_role("button", name="Adjust 1").click()  # not what was seen
        await expect(page.locator(".effect")).to_contain_text("+1.00")
        await page.get_by_role("button", name="Adjust 1").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("1 of 1 changed")
        await page.get_by_role("link", name="Back", exact=True).click()
        story = page.get_by_role("region", name="Timeline")
        await expect(story).to_contain_text("By key of admin")
        await expect(story).to_contain_text(HOSTILE)
        await expect(page).to_have_title("Conversion · ClickEdge")
    assert await desk.value("SELECT sum(payout_delta) FROM conversion_changes WHERE kind = 'adjusted'") == 1


async def test_without_scripts_a_whole_page_is_rejected(desk: Desk, browser: Browser) -> None:
    """By the box for all on the page; without a reason nothing happens but that it is asked for."""
    async with person(desk, browser, "boss", script=False) as page:
        await page.goto("/conversions?status=pending&from=2000-01-02")
        await page.get_by_label("on this page").check()
        await page.get_by_role("button", name="Reject").click()
        await page.get_by_role("button", name="Reject 7").click()
        await expect(page.locator("#reason-fault")).to_have_text("pick why")
        await page.get_by_label("Reason").select_option("fraud")
        await page.get_by_role("button", name="Reject 7").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("7 of 7 changed")
    assert await desk.value("SELECT count(*) FROM conversions WHERE status = 'pending'") == 0


async def test_filters_stand_in_the_url_and_can_be_taken_away(shown: Desk, browser: Browser) -> None:
    """Fields left empty do not; a fault stands beside its field and nothing is looked up."""
    async with person(shown, browser, "looker") as page:
        await page.goto("/conversions")
        await page.get_by_text("Filters").click()
        await page.get_by_label("From", exact=True).fill("2000-01-02")
        await page.get_by_label("Offers").select_option(["17", "20"])
        await page.get_by_label("rejected").check()
        await page.get_by_label("Reasons").select_option("duplicate")
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**/conversions?from=2000-01-02&status=rejected&offer=17&offer=20&reason=duplicate")
        await expect(page.locator("table.list tbody tr")).to_have_count(1)
        await expect(page.locator("table.list")).to_contain_text("an earlier conversion is the same")
        assert await page.get_by_role("button", name="Approve").count() == 0
        await page.get_by_role("link", name="Status: rejected").click()
        await page.wait_for_url("**/conversions?from=2000-01-02&offer=17&offer=20&reason=duplicate")
        await page.goto("/conversions?from=yesterday&offer=x")
        await expect(page.locator("#from-fault")).to_contain_text("is no date")
        await expect(page.locator("#offer-fault")).to_contain_text("is no id")
        order = await shown.value("SELECT min(conversion_unique_id) FROM conversions WHERE conversion_unique_id <> ''")
        await page.get_by_placeholder("Conversion, click or order id").fill(str(order))
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/conversions?id={order}")
        await expect(page.locator("table.list tbody tr")).to_have_count(1)


async def test_a_partner_sees_its_own_conversions_without_revenue_and_addresses(shown: Desk, browser: Browser) -> None:
    """Nobody else's, no note of ours, and nothing to change them with; contacts and cohorts are not there for it."""
    mine, theirs = [
        await shown.value(f"SELECT conversion_id::text FROM conversions WHERE aff_id = {aff_id} ORDER BY received_at DESC LIMIT 1")
        for aff_id in (2, 3)
    ]
    async with person(shown, browser, "p2") as page:
        for path in ("/conversions?from=2000-01-02", f"/conversions/{mine}"):
            await page.goto(path)
            text = await page.locator("main").inner_text()
            for secret in ("evenue", "7.50", "198.51.100", "Approve"):
                assert secret not in text, (path, secret)
            assert "5.00" in text
        for path in (f"/conversions/{theirs}", "/conversions?partner=3", "/contacts", "/contacts/p99", "/cohorts", "/cohorts.csv", "/cohorts/chart.json"):
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 404, path


async def test_a_contact_is_found_and_its_journey_told(shown: Desk, browser: Browser) -> None:
    """Searched by a part of its id, with its figures for life and its touches; an id with a script in it is text."""
    async with person(shown, browser, "looker") as page:
        await page.goto("/contacts")
        await expect(page.locator("table.list tbody tr")).to_have_count(5)
        await page.keyboard.press("/")
        await page.keyboard.type("SCRIPT")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/contacts?q=SCRIPT")
        await page.get_by_role("link", name="<script>").click()
        await expect(page.locator("ol.story > li")).to_have_count(2)
        await expect(page.get_by_role("region", name="First and last touch, table")).to_contain_text("mail")
        assert await page.locator("main script, main img").count() == 0
        assert (await page.title()).endswith("· ClickEdge")
        await page.get_by_role("link", name="all of them").click()
        await expect(page.locator("table.list tbody tr")).to_have_count(1)
        await page.goto("/contacts?from=never&has_converted=true")
        await expect(page.locator("#from-fault")).to_contain_text("is no date")


async def test_cohorts_are_shaded_drawn_and_downloaded(shown: Desk, browser: Browser) -> None:
    """Windows that are not over say so; the CSV has the table's figures."""
    async with person(shown, browser, "looker") as page:
        await page.goto("/cohorts?cohort=day")
        await page.get_by_label("Days after they came").fill("2,7,5000")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#windows-fault")).to_contain_text("1 to 3660")
        await page.get_by_label("Days after they came").fill("2,7,99")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#lines canvas")).to_be_visible()
        row = page.locator("table.heat tbody tr").first
        assert (await row.locator("td").all_inner_texts())[1:] == ["0.00\n0.00", "7.50\n7.50", "7.50\n7.50"]
        await expect(row.locator("td.h9")).to_have_count(2)
        await expect(page.locator("table.heat td.open").first).to_contain_text("so far")
        async with page.expect_download() as caught:
            await page.get_by_role("link", name="CSV").click()
        text = (await (await caught.value).path()).read_text()
        assert text.startswith("cohort,contacts,currency,days,is_complete,converting,conversions,revenue,revenue_per_contact\n")
        assert ",1,USD,7,true,1,1,7.500000,7.500000\n" in text
        await page.goto("/cohorts?windows=3660")  # nobody came so long ago: there is nothing to draw
        await expect(page.locator("table.heat td.open").first).to_contain_text("so far")
        await expect(page.locator("#lines")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_lists_and_their_pages_are_accessible_and_fit_a_phone(shown: Desk, browser: Browser, scheme: str) -> None:
    """axe finds no fault, open filters and the page before a change included; nothing is wider than the screen."""
    conversion = await shown.value("SELECT conversion_id::text FROM conversions WHERE status = 'pending' LIMIT 1")
    faults: list[str] = []
    async with person(shown, browser, "boss", phone=True) as page:
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for path in ("/conversions?from=x&status=rejected", "/conversions?from=2000-01-02", f"/conversions/{conversion}", "/contacts?from=x", "/contacts/p99", "/contacts/p100", "/cohorts?cohort=day"):
            await page.goto(path)
            faults += await faults_of(page, path)
        await page.goto("/conversions?from=2000-01-02")
        await page.keyboard.press("*")
        faults += await faults_of(page, "all selected")
        await page.keyboard.press("d")
        await page.get_by_label("New amount").fill("12")
        await page.get_by_role("button", name="Show what changes").click()
        faults += await faults_of(page, "review")
    assert faults == []


async def faults_of(page: Page, path: str) -> list[str]:
    """What axe says, a line a place; whether the page is wider than the screen, and a figure than its card."""
    found = await Axe().run(page)
    faults = [f"{path}: {one['id']}: {place['html'][:160]} {place['failureSummary'][:200]}" for one in found.response["violations"] for place in one["nodes"]]
    if await page.evaluate("[...document.querySelectorAll('.figure .before')].some(one => one.scrollWidth > one.clientWidth)"):
        faults.append(f"{path}: a figure is cut off")
    if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
        faults.append(f"{path} is wider than the screen")
    return faults
