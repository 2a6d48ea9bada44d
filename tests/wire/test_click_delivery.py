"""Where clicks go, through the public port: pages that hide the referrer, statuses, rotation, deep links."""

import re
from html import unescape
from pathlib import Path

import pytest

from storage.journal.events import Click
from tests.wire.client import Reply
from tests.wire.edge_state import CATALOG, DELIVERY
from tests.wire.port import logged, serving

pytestmark = pytest.mark.both_loops

REFRESH = re.compile(r'content="0;url=([^"]*)"')
OFFERS = CATALOG + DELIVERY


def target_of(reply: Reply) -> str:
    """Where a page leads."""
    assert (reply.status, reply.get("content-type")) == (200, "text/html; charset=utf-8")
    assert reply.get("x-content-type-options") == "nosniff"
    [target] = REFRESH.findall(reply.body.decode("ascii"))
    return unescape(target)


async def test_one_page_hides_where_a_click_came_from(tmp_path: Path) -> None:
    """It sets the cookie, is never kept, and names the target in no header."""
    async with serving(tmp_path, catalog=OFFERS) as port:
        reply = await port.get("/aff_c?offer_id=42&aff_id=2&source=%22%3E%3Cscript%3E'%26amp;")
        click_id = port.last(Click).session.click_id.hex()
        assert target_of(reply) == (
            f"https://shop.example.com/?q=%22'%22%3E%3Cscript%3E%27%26amp%3B&c={click_id}"
        )
        assert b"<script" not in reply.body
        assert reply.get("set-cookie").startswith(f"ce_42={click_id}.{click_id};")
        assert (reply.get("referrer-policy"), reply.get("cache-control")) == ("no-referrer", "no-store")
        assert reply.get("location") == ""
        assert port.last(Click).outcome == "redirected"


async def test_two_pages_make_us_the_referrer(tmp_path: Path) -> None:
    """The first leads to our own second one; only the click is recorded; the second sets nothing."""
    async with serving(tmp_path, catalog=OFFERS) as port:
        first = await port.get("/aff_c?offer_id=43&aff_id=2&source=a")
        click_id = port.last(Click).session.click_id.hex()
        second = await port.get(target_of(first))
        assert target_of(second) == f"https://shop.example.com/?q=a&c={click_id}"
        assert (first.get("referrer-policy"), second.get("referrer-policy")) == ("no-referrer", "origin")
        assert (bool(first.get("set-cookie")), second.get("set-cookie")) == (True, "")
        assert second.get("cache-control") == "no-store"
        assert len(port.events()) == 1
        assert port.count("edge_requests_total", "other", "redirected") == 1


async def test_a_hop_of_somebody_elses_making_leads_nowhere(tmp_path: Path) -> None:
    """A short 404, nothing echoed, nothing recorded, nothing logged; other methods are refused."""
    async with serving(tmp_path, catalog=OFFERS) as port:
        link = target_of(await port.get("/aff_c?offer_id=43&aff_id=2"))
        with logged() as lines:
            for target in (link[:-1], link.replace("u=", "u=AA"), "/hop", "/hop?u=x&s=%00%ff", "/hop?s=" + "0" * 32):
                reply = await port.get(target)
                assert (reply.status, reply.body) == (404, b"this link is not ours, or too old\n")
            assert (await port.post(link, b"")).status == 405
        assert (len(port.events()), lines) == (1, [])


@pytest.mark.parametrize("offer_id", [42, 43])
async def test_head_gets_the_headers_of_a_page_and_no_body(tmp_path: Path, offer_id: int) -> None:
    """The length that GET would have, and a connection that goes on."""
    async with serving(tmp_path, catalog=OFFERS) as port, port.wire() as wire:
        wire.get(f"/aff_c?offer_id={offer_id}&aff_id=2", method="HEAD")
        head = await wire.reply(has_body=False)
        wire.get(f"/aff_c?offer_id={offer_id}&aff_id=2")
        reply = await wire.reply()
        assert head.get("content-length") == reply.get("content-length") != "0"
        assert [name for name, _ in head.headers] == [name for name, _ in reply.headers]
        assert port.events()[0].flags == ["prefetch"]  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [301, 302, 303, 307])
async def test_every_status_is_answered_and_none_is_kept(tmp_path: Path, status: int) -> None:
    """A browser that kept a 301 would never come back to be counted."""
    text = OFFERS.replace('redirect = "303"', f'redirect = "{status}"')
    async with serving(tmp_path, catalog=text) as port:
        reply = await port.get("/aff_c?offer_id=44&aff_id=2")
        click_id = port.last(Click).session.click_id.hex()
        assert (reply.status, reply.get("location")) == (status, f"https://shop.example.com/?c={click_id}")
        assert (reply.get("cache-control"), reply.get("content-length")) == ("no-store", "0")
        assert reply.get("set-cookie").startswith("ce_44=")


async def test_a_browser_stays_with_its_page(tmp_path: Path) -> None:
    """With its cookie from another address too; the page is recorded with each click."""
    async with serving(tmp_path, catalog=OFFERS, trusted="127.0.0.1/32") as port:
        for number in range(20):
            agent, here = f"User-Agent: Browser {number}", f"X-Forwarded-For: 198.51.100.{number}"
            first = await port.get("/aff_c?offer_id=40&aff_id=2", agent, here)
            page = port.last(Click).session.landing_page_id
            cookie = "Cookie: " + first.get("set-cookie").partition(";")[0]
            for headers in ((agent, here), (cookie, agent), (cookie, "User-Agent: other")):
                await port.get("/aff_c?offer_id=40&aff_id=2", *headers)
                assert port.last(Click).session.landing_page_id == page


async def test_a_deep_link_goes_to_the_offers_hosts_only(tmp_path: Path) -> None:
    """As it was decoded; a refused one is flagged, and leads where the offer does."""
    async with serving(tmp_path, catalog=OFFERS) as port:
        deep = await port.get("/aff_c?offer_id=44&aff_id=2&url=https%3A%2F%2Fwww.first.example.com%2Fa%2520b%3Fc%3Dd+%22e")
        assert deep.get("location") == "https://www.first.example.com/a%20b?c=d%20%22e"
        assert port.last(Click).flags == []
        for link in ("https://evil.example/", "//shop.example.com/", "https://shop.example.com%40evil.example/"):
            refused = await port.get(f"/aff_c?offer_id=44&aff_id=2&url={link}")
            assert refused.get("location").startswith("https://shop.example.com/?c=")
            assert port.last(Click).flags == ["deep_link_refused"]
