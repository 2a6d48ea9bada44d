"""`/clk`: a click whose visitor is on the offer's page already, through the public port."""

import json
from pathlib import Path

import pytest

from storage.journal.events import Click, Conversion, encode
from tests.wire.port import serving, session_of

pytestmark = pytest.mark.both_loops


async def test_a_direct_click_answers_its_id_to_any_script_and_sets_no_cookie(tmp_path: Path) -> None:
    """The id is the event's; a script of any site may read it, and keeps it itself."""
    async with serving(tmp_path) as port:
        reply = await port.get("/clk?offer_id=17&aff_id=2&aff_sub=x", "Origin: https://shop.example.com")
        event = port.last(Click)
        click_id = session_of(event).click_id.hex()
        assert (reply.status, reply.body) == (200, f'{{"transaction_id":"{click_id}"}}'.encode())
        assert reply.get("content-type") == "application/json"
        assert reply.get("access-control-allow-origin") == "*"
        assert (reply.get("set-cookie"), reply.get("location")) == ("", "")
        assert (event.outcome, event.reason, event.params["aff_sub1"]) == ("recorded", "", "x")
        assert (session_of(event).offer_id, session_of(event).aff_id) == (17, 2)
        assert port.count("edge_requests_total", "click", "recorded") == 1


async def test_a_postback_finds_a_direct_click(tmp_path: Path) -> None:
    """It is a click like any other."""
    async with serving(tmp_path) as port:
        sent = json.loads((await port.get("/clk?offer_id=17&aff_id=2")).body)["transaction_id"]
        assert (await port.get(f"/aff_lsr?transaction_id={sent}")).body == b"success=true;"
        assert port.last(Conversion).session == encode(port.last(Click).session)


@pytest.mark.parametrize(
    ("query", "reason", "offer_id"),
    [
        ("offer_id=17&aff_id=3", "partner_blocked", 17),
        ("offer_id=17", "unknown_partner", 17),
        ("offer_id=20&aff_id=2", "offer_paused", 20),
        ("offer_id=21&aff_id=2", "offer_expired", 21),
    ],
)
async def test_a_direct_click_is_recorded_with_what_is_wrong_about_it(
    tmp_path: Path, query: str, reason: str, offer_id: int
) -> None:
    """No stand-in takes it: its visitor is on the page of the offer that was asked for."""
    async with serving(tmp_path) as port:
        assert (await port.get(f"/clk?{query}")).status == 200
        event = port.last(Click)
        assert (event.outcome, event.reason, session_of(event).offer_id) == ("recorded", reason, offer_id)


async def test_an_unknown_offer_is_not_found_in_json(tmp_path: Path) -> None:
    """Recorded all the same, as of any click; the script may read why."""
    async with serving(tmp_path) as port:
        reply = await port.get("/clk?offer_id=99&aff_id=2")
        assert (reply.status, json.loads(reply.body)) == (404, {"error": "unknown offer"})
        assert reply.get("access-control-allow-origin") == "*"
        assert (port.last(Click).outcome, port.last(Click).reason) == ("rejected", "unknown_offer")
