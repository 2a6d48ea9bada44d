"""Browser pixels through the public port: the session comes from the cookie that the click set."""

import re
from pathlib import Path

import aiohttp
import pytest

from edge.tracking.request import PIXEL_GIF
from storage.journal.events import Click, Conversion, Impression
from tests.wire.client import Reply
from tests.wire.edge_state import CATALOG
from tests.wire.port import Port, serving, session_of

pytestmark = pytest.mark.both_loops


async def click(port: Port, offer_id: int, cookie: str = "") -> tuple[str, str]:
    """A click by a browser with that cookie; its id and the cookie that it then has."""
    reply = await port.get(f"/aff_c?offer_id={offer_id}&aff_id=2", *([f"Cookie: {cookie}"] if cookie else []))
    return session_of(port.last(Click)).click_id.hex(), reply.get("set-cookie").partition(";")[0]


def is_gif(reply: Reply) -> bool:
    return (reply.status, reply.get("content-type"), reply.body) == (200, "image/gif", PIXEL_GIF)


@pytest.mark.parametrize(("offer_id", "touch"), [(17, 1), (18, 0)])
async def test_a_pixel_is_attributed_by_its_offers_cookie(tmp_path: Path, offer_id: int, touch: int) -> None:
    """Offer 17 pays the last click, offer 18 the first; other offers' cookies are not looked at."""
    async with serving(tmp_path) as port:
        first, cookie = await click(port, offer_id)
        last, cookie = await click(port, offer_id, cookie)
        _, other = await click(port, 35 - offer_id)
        reply = await port.get(f"/aff_l?offer_id={offer_id}&amount=5&adv_sub=A-1", f"Cookie: {other}; {cookie}")
        assert is_gif(reply)
        assert reply.get("cache-control") == "no-store"
        event = port.last(Conversion)
        assert event.click_id.hex() == (first, last)[touch]
        assert (event.via, event.transaction_id, event.offer_id) == ("pixel", "", offer_id)
        assert (event.params["amount"], event.params["adv_sub1"]) == ("5", "A-1")
        assert event.session
        assert port.count("edge_requests_total", "pixel", "recorded") == 1


async def test_a_client_with_a_cookie_jar_needs_nothing_else(tmp_path: Path) -> None:
    """Click, then pixel, as a browser does both."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with serving(tmp_path) as port, aiohttp.ClientSession(cookie_jar=jar) as session:
        async with session.get(f"{port.origin}/aff_c?offer_id=17&aff_id=2", allow_redirects=False) as answer:
            assert answer.status == 302
        async with session.get(f"{port.origin}/aff_l?offer_id=17") as answer:
            assert await answer.read() == PIXEL_GIF
        assert port.last(Conversion).click_id == session_of(port.last(Click)).click_id


async def test_a_transaction_id_beats_the_cookie(tmp_path: Path) -> None:
    """Also a forged one: no cookie makes up for it."""
    async with serving(tmp_path) as port:
        named, _ = await click(port, 17)
        _, cookie = await click(port, 17)
        assert is_gif(await port.get(f"/aff_l?offer_id=17&transaction_id={named}", f"Cookie: {cookie}"))
        assert port.last(Conversion).click_id.hex() == named
        assert is_gif(await port.get("/aff_l?offer_id=17&transaction_id=forged", f"Cookie: {cookie}"))
        assert (port.last(Conversion).click_id, port.last(Conversion).transaction_id) == (b"", "forged")
        assert port.count("edge_forged_ids_total") == 1


@pytest.mark.parametrize("cookie", ["", "ce_17=x.y", "ce_17=", "ce_18=x", "\x80\xff;;=;ce_17"])
async def test_a_pixel_without_a_click_is_a_gif_too(tmp_path: Path, cookie: str) -> None:
    """The browser learns nothing; the conversion is stored without a click."""
    async with serving(tmp_path) as port:
        assert is_gif(await port.get("/aff_l?offer_id=17", *([f"Cookie: {cookie}"] if cookie else [])))
        assert (port.last(Conversion).click_id, port.last(Conversion).session) == (b"", b"")
        assert port.count("edge_forged_ids_total") == 0


async def test_a_goals_pixel_names_its_goal(tmp_path: Path) -> None:
    """`/aff_goal?a=l`, by id or name; a goal that the offer lacks is left to the drain."""
    async with serving(tmp_path) as port:
        _, cookie = await click(port, 17)
        for query, goal_id in (("goal_id=1", 1), ("goal_name=lead", 1), ("goal_id=9", 9), ("goal_name=nothing", 0)):
            assert is_gif(await port.get(f"/aff_goal?a=l&offer_id=17&{query}", f"Cookie: {cookie}"))
            assert port.last(Conversion).goal_id == goal_id


async def test_a_goals_id_alone_finds_the_offer_among_the_cookies(tmp_path: Path) -> None:
    """`/aff_goal?a=l&goal_id=`, as TUNE writes it; what more than one of the browser's offers has names none of them."""
    catalog = CATALOG.replace('name = "First click wins"', 'name = "First click wins"\ngoals = [{ id = 2, name = "x" }]')
    async with serving(tmp_path, catalog=catalog) as port:
        id_17, cookie_17 = await click(port, 17)
        id_18, cookie_18 = await click(port, 18)
        both = f"a=b; {cookie_17}; {cookie_18}"
        for cookie, goal_id, click_id, offer_id in (
            (both, 1, id_17, 17),
            (cookie_18, 2, id_18, 18),
            (both, 2, "", 0),
            (both, 3, "", 0),
            (f"{cookie_17}0; ce_99=x; ce_17=", 1, "", 0),
            ("ce_17=x.y;" * 2000, 1, "", 0),
        ):
            assert is_gif(await port.get(f"/aff_goal?a=l&goal_id={goal_id}", f"Cookie: {cookie}"))
            event = port.last(Conversion)
            assert (event.click_id.hex(), event.offer_id, event.goal_id) == (click_id, offer_id, goal_id)
        assert is_gif(await port.get("/aff_goal?a=l&goal_id=1", f"Cookie: {both}", "Sec-GPC: 1"))
        assert port.last(Conversion).click_id == b""


async def test_a_pixel_may_be_a_script(tmp_path: Path) -> None:
    """`format=js`, with and without a click."""
    async with serving(tmp_path) as port:
        _, cookie = await click(port, 17)
        for header in (f"Cookie: {cookie}", "A: b"):
            reply = await port.get("/aff_l?offer_id=17&format=js", header)
            assert (reply.status, reply.get("content-type")) == (200, "text/javascript; charset=utf-8")
            assert re.fullmatch(rb"/\*[^*]*\*/\n", reply.body)


async def test_a_pixel_without_a_click_takes_the_view(tmp_path: Path) -> None:
    """The impression's cookie is the browser's way back to it; a click beats it, whichever came last."""
    async with serving(tmp_path) as port:
        view = (await port.get("/aff_i?offer_id=17&aff_id=2")).get("set-cookie").partition(";")[0]
        assert is_gif(await port.get("/aff_l?offer_id=17", f"Cookie: {view}"))
        assert port.last(Conversion).click_id == session_of(port.last(Impression)).click_id
        clicked, cookie = await click(port, 17, view)
        view = (await port.get("/aff_i?offer_id=17&aff_id=2")).get("set-cookie").partition(";")[0]
        assert is_gif(await port.get("/aff_l?offer_id=17", f"Cookie: {view}; {cookie}"))
        assert port.last(Conversion).click_id.hex() == clicked
        assert is_gif(await port.get("/aff_l?offer_id=17", "Cookie: cv_17=forged"))
        assert port.last(Conversion).click_id == b""
