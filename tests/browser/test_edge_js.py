"""edge.js in a real browser, from the partner's link to the row in PostgreSQL."""

import os
from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import Route

from tests.browser.conftest import Pages, Site, Visitor
from tests.node import eventually

pytestmark = [pytest.mark.debian("chromium"), pytest.mark.timeout(120)]

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
    assert await visitor.kept() == sent
    await page.goto(f"{site.home}/thank-you")
    await visitor.calls("clickedge.conversion({amount: '19.90', currency: 'USD', adv_sub: 'order 7'})")
    row = await site.row(CONVERSIONS, sent)
    assert (row["status"], row["payout"], row["adv_sub1"], row["via"]) == ("approved", 5, "order 7", "pixel")
    assert (await site.row(CLICKS, UUID(sent)))["aff_sub1"] == "top"
    assert visitor.asked_for("/clk") == []
