"""Postbacks that name no click of ours, through the public port: by GET, form and JSON, and by an alias."""

from pathlib import Path

import pytest

from storage.journal.events import Conversion
from tests.wire.edge_state import CATALOG
from tests.wire.port import Port, serving

pytestmark = pytest.mark.both_loops

SUCCESS = b"success=true;"
OFFERS = """
[[offers]]
id = 30
advertiser_id = 1
name = "Codes"
url = "https://shop.example.com/"
promo_codes = [{ code = "XMAS", aff_id = 2 }]
[[offers]]
id = 31
advertiser_id = 1
name = "Rebills"
url = "https://shop.example.com/"
tracking = "partner_id"
[[aliases]]
path = "RB1"
kind = "postback"
params = { offer_id = 31, aff_id = 2 }
"""


def last(port: Port) -> tuple[str, bytes, bool, int]:
    """What the newest conversion's event says of its touch."""
    event = port.last(Conversion)
    return event.transaction_id, event.click_id, event.is_external, event.offer_id


async def test_a_custom_id_is_accepted_from_the_first_click_that_carries_one(tmp_path: Path) -> None:
    """Before that it is forged; ids of ours are as ever."""
    async with serving(tmp_path) as port:
        assert (await port.get("/aff_lsr?transaction_id=T.1")).body == b"success=false; err_msg=Invalid Trans. ID #.;"
        ours = await port.click("offer_id=17&aff_id=2&ad_id=T.1")
        assert (await port.get("/aff_lsr?transaction_id=T.1")).body == SUCCESS
        assert last(port) == ("T.1", b"", True, 0)
        assert (await port.post("/aff_lsr", b"transaction_id=T.2&offer_id=17")).body == SUCCESS
        assert last(port) == ("T.2", b"", True, 17)
        assert (await port.get(f"/aff_lsr?transaction_id={ours}")).body == SUCCESS
        assert last(port) == (ours, bytes.fromhex(ours), False, 17)
        assert port.count("edge_forged_ids_total") == 1
        assert port.count("edge_session_lookups_total", "miss") == 0


@pytest.mark.parametrize(
    ("target", "offer_id"),
    [
        ("/aff_lsr?offer_id=31&aff_id=2", 31),
        ("/RB1", 31),
        ("/aff_lsr?offer_id=30&promo_code=xmas", 30),
        ("/aff_lsr?contact_id=c-1", 0),
    ],
)
async def test_partner_code_or_contact_is_enough(tmp_path: Path, target: str, offer_id: int) -> None:
    """Recorded, without an id."""
    async with serving(tmp_path, catalog=CATALOG + OFFERS) as port:
        assert (await port.get(target)).body == SUCCESS
        assert last(port) == ("", b"", False, offer_id)


async def test_a_sale_in_json_may_name_its_contact(tmp_path: Path) -> None:
    """As servers send it that know their customers and no click."""
    async with serving(tmp_path) as port:
        reply = await port.post("/aff_lsr", b'{"contact_id": "c-1", "amount": 49.9}', "application/json")
        assert reply.body == SUCCESS
        assert port.last(Conversion).params == {"contact_id": "c-1", "amount": "49.9"}


@pytest.mark.parametrize("query", ["offer_id=30&promo_code=EASTER", "offer_id=30&aff_id=2", "offer_id=31", "aff_id=2"])
async def test_who_names_nobody_is_told_so_and_costs_nothing(tmp_path: Path, query: str) -> None:
    """TUNE's words for a missing id; nothing is stored."""
    async with serving(tmp_path, catalog=CATALOG + OFFERS) as port:
        assert (await port.get(f"/aff_lsr?{query}")).body == b"success=false; err_msg=Invalid Trans. ID #.;"
        assert port.events() == []
