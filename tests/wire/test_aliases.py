"""Short links through the public port: frozen parameters, merged ones, every kind."""

from pathlib import Path

import pytest

from edge.tracking.request import PIXEL_GIF
from storage.journal.events import Click, Conversion, Impression
from tests.wire.edge_state import build_catalog
from tests.wire.port import serving, session_of

pytestmark = pytest.mark.both_loops


async def test_an_alias_is_its_click_with_frozen_parameters(tmp_path: Path) -> None:
    """What a partner appends is merged in, but frozen parameters win; the event names the alias."""
    async with serving(tmp_path) as port:
        reply = await port.get("/SL2?aff_sub=mine&aff_sub2=added&offer_id=18&aff_id=3&url_id=1")
        event = port.last(Click)
        click_id = session_of(event).click_id.hex()
        assert reply.get("location") == f"https://pages.example.com/a?clickid={click_id}"
        assert (event.alias, event.params["aff_sub1"], event.params["aff_sub2"]) == ("SL2", "frozen", "added")
        assert (session_of(event).offer_id, session_of(event).aff_id) == (17, 2)


async def test_every_kind_has_aliases(tmp_path: Path) -> None:
    """Each answers as its kind does, with the parameters frozen into it."""
    async with serving(tmp_path) as port:
        assert (await port.get("/IM1")).body == PIXEL_GIF
        assert (port.last(Impression).alias, session_of(port.last(Impression)).offer_id) == ("IM1", 17)
        cookie = (await port.get("/SL2")).get("set-cookie").partition(";")[0]
        click_id = session_of(port.last(Click)).click_id.hex()
        for path, goal_id in (("/SP1", 0), ("/GP1", 1)):
            reply = await port.get(f"{path}?transaction_id={click_id}&goal_id={goal_id or ''}")
            assert reply.body == b"success=true;"
            assert (port.last(Conversion).goal_id, port.last(Conversion).via) == (goal_id, "postback")
        for path, goal_id in (("/PX1", 0), ("/GL1", 1)):
            assert (await port.get(f"{path}?goal_id={goal_id or ''}", f"Cookie: {cookie}")).body == PIXEL_GIF
            event = port.last(Conversion)
            assert (event.goal_id, event.via, event.click_id.hex()) == (goal_id, "pixel", click_id)


async def test_a_frozen_offer_is_the_postbacks_too(tmp_path: Path) -> None:
    """Without it in the request; and a goal that the frozen offer lacks is refused."""
    async with serving(tmp_path) as port:
        elsewhere = port.state.ids.mint(0).hex()
        assert (await port.get(f"/SP1?transaction_id={elsewhere}&offer_id=18")).body == b"success=true;"
        assert port.last(Conversion).offer_id == 17
        reply = await port.get(f"/SP1?transaction_id={elsewhere}&goal_id=9")
        assert reply.body == b"success=false; err_msg=Invalid Goal ID #9.;"


@pytest.mark.parametrize("path", ["/", "/SL3", "/sl2", "/SL2/", "/SL2/x", "//SL2", "/%53L2", "/aff_x", "/../SL2"])
async def test_an_unknown_path_is_not_found(tmp_path: Path, path: str) -> None:
    """In plain words, with nothing of it echoed or recorded."""
    async with serving(tmp_path) as port:
        reply = await port.get(f"{path}?offer_id=17&aff_id=2")
        assert (reply.status, reply.body) == (404, b"not found\n")
        assert port.events() == []
        assert port.count("edge_requests_total", "other", "bad_request") == 1


async def test_an_alias_follows_the_catalog(tmp_path: Path) -> None:
    """The next snapshot is in force with the next request, on a connection that was open before."""
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.get("/SL2")
        assert (await wire.reply()).status == 302
        assert (await port.get("/SL9")).status == 404
        body = b'{"path":"SL9","kind":"click","params":{"offer_id":"18","aff_id":"2"}}'
        port.state.catalog = build_catalog().changed(8, [("aliases", "SL9", body), ("aliases", "SL2", None)])
        wire.get("/SL9")
        assert (await wire.reply()).get("location").startswith("https://first.example.com/")
        assert session_of(port.last(Click)).revision == 8
        wire.get("/SL2")
        assert (await wire.reply()).status == 404
