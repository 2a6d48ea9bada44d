"""The vendors' documented requests through the public port: what is understood, stored and answered."""

from pathlib import Path

import pytest

from edge.tracking.request import PIXEL_GIF
from storage.journal.events import Click, Conversion, Event, Impression
from tests.wire.client import Reply
from tests.wire.dialect_examples import EXAMPLES, MOVED, Example
from tests.wire.port import Port, serving, session_of

pytestmark = pytest.mark.both_loops


def say(text: str, click_id: str) -> str:
    return text.replace("{click}", click_id)


async def ask(port: Port, example: Example, click_id: str) -> Reply:
    async with port.wire() as wire:
        target = say(example.target, click_id)
        if example.method == "POST":
            wire.post(target, say(example.body, click_id).encode(), example.type, *example.headers)
        else:
            wire.get(target, *example.headers, method=example.method)
        return await wire.reply()


def assert_event(example: Example, event: Event, click_id: str) -> None:
    """The event is of that kind and says what it should."""
    assert isinstance(event, Click | Impression | Conversion)
    assert {name: event.params.get(name) for name in example.params} == example.params
    assert [name for name in example.absent if name in event.params] == []
    if isinstance(event, Conversion):
        assert event.via == example.event
        assert event.goal_id == example.goal_id
        if "refused" not in example.name:
            assert event.click_id.hex() == ("" if example.by_contact else click_id)
            assert event.transaction_id == ("" if example.by_contact else click_id)
    else:
        assert type(event).__name__.lower() == example.event
        assert example.alias is None or event.alias == example.alias


@pytest.mark.parametrize("is_lane_on", [True, False], ids=["lane", "aiohttp"])
@pytest.mark.parametrize("example", EXAMPLES, ids=[example.key for example in EXAMPLES])
async def test_a_vendors_documented_request_is_understood(tmp_path: Path, example: Example, is_lane_on: bool) -> None:
    """Kind, parameters, status and reply are as its examples say, by either way through the port."""
    async with serving(tmp_path, catalog=MOVED, is_lane_on=is_lane_on) as port:
        click_id = await port.click()
        before = len(port.events())
        reply = await ask(port, example, click_id)
        new = port.events()[before:]
        assert reply.status == example.status
        assert len(new) == bool(example.event)
        event_id = ""
        if new:
            assert_event(example, new[0], click_id)
            event_id = "" if isinstance(new[0], Conversion) else session_of(new[0]).click_id.hex()  # type: ignore[arg-type]
        assert reply.get("location") == example.location.replace("{id}", event_id)
        if example.reply is not None:
            assert reply.body.decode() == say(example.reply, click_id).replace("{id}", event_id)
        elif example.event in ("impression", "pixel"):
            assert reply.body == PIXEL_GIF


async def test_every_event_of_another_dialect_names_it_and_a_native_one_names_none(tmp_path: Path) -> None:
    """So that reports can tell who still sends what."""
    async with serving(tmp_path, catalog=MOVED) as port:
        click_id = await port.click()
        for example in EXAMPLES:
            before = len(port.events())
            await ask(port, example, click_id)
            for event in port.events()[before:]:
                assert isinstance(event, Click | Impression | Conversion)
                is_alias = isinstance(event, Click) and example.target.partition("?")[0][1:] == event.alias
                expected = None if example.vendor == "tune" or is_alias else example.vendor
                assert event.params.get("dialect") == expected


async def test_what_a_reply_echoes_is_text_to_every_browser(tmp_path: Path) -> None:
    """Keitaro's `return=` and Dub's JSON cannot become a page of ours, however long."""
    async with serving(tmp_path, catalog=MOVED) as port:
        click_id = await port.click()
        reply = await port.get(f"/key/postback?subid={click_id}&return=%3Cb%3E{'x' * 2000}")
        assert reply.body == b"<b>" + b"x" * 253
        assert reply.get("content-type") == "text/plain; charset=utf-8"
        assert reply.get("x-content-type-options") == "nosniff"
        body = f'{{"clickId":"{click_id}","eventName":"lead","customerExternalId":"{"y" * 500}"}}'.encode()
        reply = await port.post("/track/lead", body, "application/json")
        assert reply.body.count(b"y") == 100
        assert reply.get("x-content-type-options") == "nosniff"


async def test_a_vendors_pixel_finds_its_click_by_the_cookie(tmp_path: Path) -> None:
    """A shop's page fires Post Affiliate Pro's image without any id, as its pages say."""
    async with serving(tmp_path, catalog=MOVED) as port:
        reply = await port.get("/scripts/click.php?a_aid=testaff&a_bid=11110001")
        cookie = reply.get("set-cookie").partition(";")[0]
        target = "/scripts/sale.php?AccountId=default1&TotalCost=120.50&OrderID=ORD_12345XYZ&ProductID=test+product"
        assert (await port.get(target, f"Cookie: {cookie}")).body == PIXEL_GIF
        event = port.last(Conversion)
        assert event.click_id == session_of(port.last(Click)).click_id
        assert (event.offer_id, event.params["amount"]) == (17, "120.50")


async def test_a_browser_may_ask_for_leave_to_post_a_click(tmp_path: Path) -> None:
    """Dub's script posts JSON from other sites, so that browsers ask first."""
    async with serving(tmp_path, catalog=MOVED) as port:
        reply = await port.get("/track/click", "Origin: https://acme.com", method="OPTIONS")
        assert (reply.status, reply.body) == (204, b"")
        assert reply.get("access-control-allow-origin") == "*"
        assert reply.get("access-control-allow-methods") == "POST"
        assert reply.get("access-control-allow-headers") == "Authorization, Content-Type"
        assert (await port.get("/track/lead", method="OPTIONS")).status == 405
        assert port.events() == []


async def test_a_vendors_path_asked_in_the_wrong_way_records_nothing(tmp_path: Path) -> None:
    """405 names what is allowed; a path that nobody has stays 404."""
    async with serving(tmp_path, catalog=MOVED) as port:
        reply = await port.get("/track/sale?customerExternalId=u1")
        assert (reply.status, reply.get("allow")) == (405, "POST")
        assert (await port.get("/key/postback?subid=1", method="HEAD")).status == 405
        for target in ("/", "/?x=1", "/postback/x", "/a/b", "/a/b/c", "/c/1/2", "/Advertisers/x", "/scripts/x.php"):
            assert (await port.get(target)).status == 404
        assert (await port.get("/postback")).status == 400
        assert port.events() == []
