"""edge.js in a real browser, from the partner's link to the row in PostgreSQL."""

from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import Route

from tests.browser.conftest import Pages, Site, Visitor
from tests.node import eventually

pytestmark = [pytest.mark.browser, pytest.mark.debian("chromium"), pytest.mark.timeout(120)]

CONVERSIONS = "SELECT * FROM conversions WHERE transaction_id = $1"
CLICKS = "SELECT * FROM clicks WHERE click_id = $1"


async def test_a_clicked_link_converts_on_the_advertisers_site(site: Site, pages: Pages, visitor: Visitor) -> None:
    """The landing page takes the id from its URL, keeps it first-party, and a later page's conversion is approved."""
    pages.html["/blog"] = f'<a href="{site.edge}/aff_c?offer_id=17&aff_id=2&aff_sub=top">Holiday decor</a>'
    page = visitor.page
    await page.goto(f"{site.home}/blog")
    await page.get_by_role("link").click()
    await page.wait_for_url("**/landing?transaction_id=*")
    sent = page.url.partition("=")[2]
    assert await visitor.known_id() == sent

    async def is_kept() -> bool:
        return await visitor.kept() == sent

    await eventually(is_kept, 20.0)  # once the edge has said that the offer may
    await page.goto(f"{site.home}/thank-you")
    await visitor.calls("clickedge.conversion({amount: '19.90', currency: 'USD', adv_sub: 'order 7'})")
    row = await site.row(CONVERSIONS, sent)
    assert (row["status"], row["payout"], row["adv_sub1"], row["via"]) == ("approved", 5, "order 7", "pixel")
    assert (await site.row(CLICKS, UUID(sent)))["aff_sub1"] == "top"
    assert visitor.asked_for("/clk") == []


async def test_a_page_reached_directly_gets_a_session_of_its_own(site: Site, pages: Pages, visitor: Visitor) -> None:
    """Without an id `/clk` mints one, with what the page's URL says of the partner; it converts like any other."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2"'
    await visitor.page.goto(f"{site.home}/?aff_id=3&aff_sub=mail&utm_source=news%20letter&q=shoes&aff_sub9=x")
    minted = await visitor.known_id()
    assert await visitor.kept() == f"{minted}.17.3"
    await visitor.calls("clickedge.conversion({goal_id: 1})")
    row = await site.row(CONVERSIONS, minted)
    assert (row["status"], row["goal_id"], row["aff_id"], row["payout"]) == ("approved", 1, 3, 1)
    click = await site.row(CLICKS, UUID(minted))
    assert (click["outcome"], click["offer_id"], click["aff_sub1"]) == ("recorded", 17, "mail")
    assert (click["utm_source"], click["extras"]) == ("news letter", '{"aff_sub9": "x"}')


async def test_a_second_visit_is_the_same_session_until_another_partner_sends_it(
    site: Site, pages: Pages, visitor: Visitor
) -> None:
    """The cookie's id is used again, also on the link that minted it; another partner's link makes another session."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2"'
    await visitor.page.goto(f"{site.home}/?aff_id=3")
    minted = await visitor.known_id()
    for path in ("/", "/?aff_id=3", "/shoes?size=43"):
        await visitor.page.goto(site.home + path)
        assert await visitor.known_id() == minted
    assert len(visitor.asked_for("/clk")) == 1
    await visitor.page.goto(f"{site.home}/?aff_id=2")
    other = await visitor.known_id()
    assert other != minted
    assert await visitor.kept() == f"{other}.17.2"
    await visitor.page.goto(f"{site.home}/landing?transaction_id={minted}")
    assert await visitor.known_id() == await visitor.kept() == minted


async def test_who_comes_by_themselves_is_no_partners_click(site: Site, pages: Pages, visitor: Visitor) -> None:
    """Without a partner in the URL or on the tag no session is made, and a redirect's cookie stays what counts."""
    await visitor.page.goto(f"{site.home}/?offer_id=18&aff_id=x")
    assert await visitor.known_id() == await visitor.kept() == ""
    assert visitor.asked_for("/clk") == []


async def test_before_consent_nothing_is_kept_and_nothing_is_asked(site: Site, pages: Pages, visitor: Visitor) -> None:
    """Only the script itself is fetched. Then what was called before is done; withdrawn consent forgets it all."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2" data-consent="required"'
    page = visitor.page
    await page.goto(f"{site.home}/", wait_until="networkidle")
    await visitor.calls("clickedge.conversion({adv_sub: 'early'}); clickedge.impression()")
    await page.goto(f"{site.home}/?transaction_id=abc", wait_until="networkidle")
    await visitor.calls("clickedge.conversion({adv_sub: 'early'}); clickedge.impression()")
    storage = await page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]")
    assert storage == ["", 0, 0]
    assert await visitor.context.cookies() == []
    assert {url.split("?")[0] for url in visitor.asked} == {"/edge.js"}
    await page.goto(f"{site.home}/", wait_until="networkidle")
    await visitor.calls("clickedge.conversion({adv_sub: 'waited'}); clickedge.consent(true)")
    minted = await visitor.known_id()
    assert await visitor.kept() == f"{minted}.17.2"
    assert (await site.row(CONVERSIONS, minted))["adv_sub1"] == "waited"
    asked = len(visitor.asked)
    await visitor.calls("clickedge.consent(false); clickedge.conversion({adv_sub: 'late'})")
    assert await page.evaluate("[document.cookie, clickedge.transaction_id]") == ["", ""]
    await visitor.calls("clickedge.consent(true)")
    assert await visitor.known_id() not in ("", minted)
    assert [url for url in visitor.asked[asked:] if not url.startswith(("/clk?", "/edge.js/17"))] == []


async def test_consent_withdrawn_while_the_id_is_on_its_way_is_heeded(
    site: Site, pages: Pages, visitor: Visitor
) -> None:
    """An answer that comes too late is not kept."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2" data-consent="required"'
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    await visitor.page.route("**/clk?*", hold)
    await visitor.page.goto(f"{site.home}/")
    await visitor.calls("clickedge.conversion({}); clickedge.consent(true)")

    async def is_held() -> bool:
        return bool(held)

    await eventually(is_held, 10)
    await visitor.calls("clickedge.consent(false)")
    async with visitor.page.expect_request_finished(lambda request: "/clk" in request.url):
        await held[0].continue_()
    assert await visitor.kept() == ""
    assert visitor.asked_for("/aff_l") == []


@pytest.mark.parametrize("attributes", ['data-offer-id="17"', 'data-param="transaction_id"'])
async def test_consent_withdrawn_by_whoever_waits_for_the_id_is_heeded(
    site: Site, pages: Pages, visitor: Visitor, attributes: str
) -> None:
    """Nothing is kept afterwards, and what waited behind is not sent; whether or not the offer is asked about."""
    pages.attributes = attributes
    early = "['ready', function () { clickedge.consent(false) }], ['conversion', {}]"
    pages.html["/"] = f"<script>clickedge = [{early}]</script>" + pages.script(f'{attributes} data-consent="required"')
    await visitor.page.goto(f"{site.home}/?transaction_id=abc", wait_until="networkidle")
    await visitor.calls("clickedge.consent(true)")
    await visitor.page.wait_for_load_state("networkidle")
    assert await visitor.page.evaluate("[document.cookie, clickedge.transaction_id]") == ["", ""]
    assert {url.split("?")[0] for url in visitor.asked} == {"/edge.js"}


async def test_an_impression_under_way_when_consent_is_withdrawn_is_broken_off(
    site: Site, pages: Pages, visitor: Visitor
) -> None:
    """Its answer would bring a cookie of the tracking host's."""
    pages.attributes = 'data-offer-id="18" data-aff-id="2"'
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    await visitor.page.route("**/aff_i?*", hold)
    await visitor.page.goto(f"{site.home}/")
    await visitor.known_id()
    await visitor.calls("clickedge.impression()")

    async def is_held() -> bool:
        return bool(held)

    await eventually(is_held, 10)
    async with visitor.page.expect_event("requestfailed", lambda request: "/aff_i" in request.url):
        await visitor.calls("clickedge.consent(false)")


async def test_an_ad_blocker_breaks_nothing_on_the_page(site: Site, pages: Pages, visitor: Visitor) -> None:
    """Whether the script, the session or the pixel is blocked: no error, and callbacks still come, without an id."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2"'
    pages.html["/stub"] = "<script>clickedge = window.clickedge || []; clickedge.push(['conversion', {}])</script>" + (
        pages.script()
    )
    page = visitor.page
    await page.route("**/edge.js", lambda route: route.abort())
    await page.goto(f"{site.home}/stub", wait_until="networkidle")
    assert await page.evaluate("clickedge.length") == 1
    await page.unroute("**/edge.js")
    await page.route("**/clk?*", lambda route: route.abort())
    await page.route("**/aff_l?*", lambda route: route.abort())
    async with page.expect_event("requestfailed", lambda request: "/aff_l" in request.url):
        await page.goto(f"{site.home}/stub")
    assert await visitor.known_id() == ""
    assert len(visitor.asked_for("/aff_l")) == 1
    assert await visitor.kept() == ""


@pytest.mark.parametrize("answer", ['{"transaction_id":"<b>"}', "<html>", '{"transaction_id":"a;b"}', ""])
async def test_an_answer_that_is_no_id_is_none(site: Site, pages: Pages, visitor: Visitor, answer: str) -> None:
    """A portal or proxy in between may answer anything."""
    pages.attributes = 'data-offer-id="17" data-aff-id="2"'
    headers = {"Access-Control-Allow-Origin": "*"}
    await visitor.page.route("**/clk?*", lambda route: route.fulfill(body=answer, headers=headers))
    await visitor.page.goto(f"{site.home}/")
    assert await visitor.known_id() == ""
    assert await visitor.kept() == ""


@pytest.mark.parametrize(
    "query",
    [
        "transaction_id=%22%3E%3Cscript%3EhasRun%3D1%3C/script%3E",
        "transaction_id=abc%3B%20Path%3D/x",
        "transaction_id=" + "a" * 65,
        "transaction_id=%E0%A4%A",
        "transaction_id=&clickid=a_b",
        "__proto__=abc&constructor=abc&=abc&&?transaction_id=abc",
    ],
)
async def test_a_hostile_url_is_no_id(site: Site, pages: Pages, visitor: Visitor, query: str) -> None:
    """What is no id is neither kept nor sent, and nothing of it runs."""
    pages.attributes = ""
    await visitor.page.goto(f"{site.home}/?{query}")
    assert await visitor.known_id() == ""
    assert await visitor.page.evaluate("[document.cookie, typeof hasRun]") == ["", "undefined"]
    fields = "{amount: '1&offer_id=17', ' bad': 1, goal_id: null, adv_sub: '<&é>'}"
    async with visitor.page.expect_request("**/aff_l?*"):
        await visitor.calls(f"clickedge.conversion({fields})")
    assert visitor.asked_for("/aff_l") == ["/aff_l?amount=1%26offer_id%3D17&adv_sub=%3C%26%C3%A9%3E"]


async def test_a_page_that_fails_in_a_callback_still_converts(site: Site, pages: Pages, visitor: Visitor) -> None:
    """Calls made before an async script has come are done in order; one that throws does not stop the next."""
    calls = "['ready', function () { throw 1 }], ['nonsense'], 7, ['ready', 7], ['conversion', {adv_sub: 'queued'}]"
    pages.html["/async"] = f"<script>clickedge = [{calls}]</script>" + pages.script('async data-offer-id="17"')
    pages.html["/async"] += pages.script('async data-offer-id="17"')
    await visitor.page.goto(f"{site.home}/plain")
    await visitor.page.goto(f"{site.edge}/aff_c?offer_id=17&aff_id=2")
    sent = await visitor.known_id()
    await visitor.page.goto(f"{site.home}/async")
    assert (await site.row(CONVERSIONS, sent))["adv_sub1"] == "queued"
    assert len(visitor.asked_for("/aff_l")) == 1


async def test_with_global_privacy_control_nothing_is_kept(site: Site, pages: Pages, visitor: Visitor) -> None:
    """The id serves the page that it came to, and no other."""
    signal = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})"
    await visitor.context.add_init_script(signal)
    await visitor.page.goto(f"{site.home}/?transaction_id=abc")
    assert await visitor.known_id() == "abc"
    await visitor.page.goto(f"{site.home}/")
    assert await visitor.known_id() != "abc"
    assert await visitor.kept() == ""


async def test_of_an_offer_without_cookies_nothing_is_kept_or_read(site: Site, pages: Pages, visitor: Visitor) -> None:
    """The id serves the page that it came to; what an earlier release kept is not read, and a direct link keeps nothing."""
    pages.attributes = 'data-offer-id="19"'
    await visitor.page.goto(f"{site.home}/?transaction_id=abc", wait_until="networkidle")
    assert await visitor.known_id() == "abc"
    assert await visitor.kept() == ""
    await visitor.page.evaluate("document.cookie = '_clickedge=old;Path=/'")
    await visitor.page.goto(f"{site.home}/?aff_id=2", wait_until="networkidle")
    minted = await visitor.known_id()
    assert minted not in ("", "abc", "old")
    assert await visitor.kept() == "old"
    await visitor.calls("clickedge.conversion({adv_sub: 'direct'})")
    assert (await site.row(CONVERSIONS, minted))["status"] == "approved"


@pytest.mark.parametrize(("days", "kept_s"), [("", 30 * 86400), ("7", 7 * 86400), ("0", 0), ("x", 0)])
async def test_the_cookie_lasts_as_long_as_the_advertiser_says(
    site: Site, pages: Pages, visitor: Visitor, days: str, kept_s: int
) -> None:
    """`data-cookie-days`, 30 by default; 0: the id is not kept. `data-param` names the parameter."""
    pages.attributes = f'data-cookie-days="{days}" data-param="cid, tid"'
    await visitor.page.goto(f"{site.home}/?transaction_id=no&tid=abc-1")
    assert await visitor.known_id() == "abc-1"
    cookies = await visitor.context.cookies()
    now_s = await visitor.page.evaluate("Date.now() / 1000")
    assert [round((cookie["expires"] - now_s) / 60) for cookie in cookies] == [kept_s // 60] * (kept_s > 0)
    assert all(cookie["sameSite"] == "Lax" and not cookie["secure"] for cookie in cookies)


async def test_a_page_without_cookies_still_converts(site: Site, pages: Pages, visitor: Visitor) -> None:
    """In a sandboxed frame reading a cookie throws; the id in the URL is enough."""
    await visitor.page.goto(f"{site.edge}/aff_c?offer_id=17&aff_id=2")
    sent = await visitor.known_id()
    pages.html["/framed"] = pages.script() + "<script>clickedge.conversion({adv_sub: 'framed'})</script>"
    pages.html["/frame"] = f'<iframe sandbox="allow-scripts" src="/framed?clickid={sent}"></iframe>'
    await visitor.page.goto(f"{site.home}/frame")
    assert (await site.row(CONVERSIONS, sent))["adv_sub1"] == "framed"


async def test_a_pixel_finds_the_session_by_the_third_party_cookie(
    site: Site, pages: Pages, everyday: Visitor, secure_edge: str
) -> None:
    """Where the URL brings no id and no script kept one, the click's cookie goes with an image, and with the script's call."""
    page = everyday.page
    await page.goto(f"{secure_edge}/aff_c?offer_id=18&aff_id=2")
    await page.wait_for_url("**/plain")
    pages.html["/thanks"] = f'<img src="{secure_edge}/aff_l?offer_id=18&adv_sub=image">'
    await page.goto(f"{site.home}/thanks")
    image = await site.row("SELECT * FROM conversions WHERE adv_sub1 = 'image'")
    assert (image["status"], image["aff_id"], image["payout"]) == ("approved", 2, 2)
    pages.html["/script"] = pages.script('data-offer-id="18"', secure_edge)
    await page.goto(f"{site.home}/script")
    await everyday.calls("clickedge.conversion({adv_sub: 'script'})")
    script = await site.row("SELECT * FROM conversions WHERE adv_sub1 = 'script'")
    assert (script["click_id"], script["reason"]) == (image["click_id"], "duplicate")


async def test_a_visitors_second_click_on_the_link_is_a_duplicate(
    site: Site, pages: Pages, visitor: Visitor, secure_edge: str
) -> None:
    """The first has no cookie, the second the first's: redirected like it, and flagged."""
    ids = []
    for _ in range(2):
        await visitor.page.goto(f"{secure_edge}/aff_c?offer_id=17&aff_id=3")
        ids.append(UUID(await visitor.known_id()))
    first, second = [await site.row(CLICKS, one) for one in ids]
    assert (first["flags"], second["flags"]) == ([], ["duplicate"])
    assert second["visitor"] == first["click_id"]


async def test_an_impression_is_recorded(site: Site, pages: Pages, visitor: Visitor) -> None:
    """`clickedge.impression()` is the offer's and the partner's."""
    pages.attributes = 'data-offer-id="18" data-aff-id="2"'
    await visitor.page.goto(f"{site.home}/")
    await visitor.calls("clickedge.impression()")
    row = await site.row("SELECT * FROM impressions WHERE offer_id = 18")
    assert (row["aff_id"], row["outcome"]) == (2, "recorded")


async def test_the_page_looks_as_it_would_without_the_script(
    site: Site, pages: Pages, visitor: Visitor, tmp_path: Path
) -> None:
    """The script adds nothing to what is seen: the same picture, pixel by pixel."""
    await visitor.page.goto(f"{site.home}/", wait_until="networkidle")
    shown = await visitor.page.screenshot(path=tmp_path / "with.png")
    pages.html["/bare"] = "<h1>Holiday decor</h1>"
    await visitor.page.goto(f"{site.home}/bare")
    assert await visitor.page.screenshot(path=tmp_path / "without.png") == shown
