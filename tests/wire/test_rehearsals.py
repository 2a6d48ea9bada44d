"""`clickedge postback-test`: what a postback would come to on a running node, and how a partner answers a sample."""

import re
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.tracking.click_id import ClickIds
from tests.faults.load import Client, id_in
from tests.node import Node, eventually
from tests.partners import PartnerServer, say
from tests.postgres.drains import Unleased, now_ms
from tests.wire.test_commands import FORGED, run
from tests.wire.test_postback_commands import command

CATALOG = """
[[advertisers]]
id = 1
name = "a"
security_token = "hunter22"
allowed_ips = ["127.0.0.1", "198.51.100.0/24"]
[[partners]]
id = 2
name = "p"
postback_url = "https://partner.example.com/pb?cid={aff_click_id}&sub={aff_sub}&amount={payout}"
[[offers]]
id = 1
advertiser_id = 1
name = "o"
url = "https://shop.example.com/o1?clickid={transaction_id}&m={aff_sub}"
payout = "5"
duplicates = "update"
caps = { total_conversions = 1 }
"""
ADVERTISER = ("--from-ip", "198.51.100.7")


@pytest.fixture
async def node(short_directory: Path, tmp_path: Path) -> AsyncIterator[Node]:
    """A node with one offer, capped at one conversion."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG)
    node = Node(short_directory / f"rehearse-{uuid.uuid4().hex[:8]}", catalog=catalog)
    try:
        yield await node.start()
        assert await node.stop() == 0
    finally:
        await node.stop(signal.SIGKILL)


async def click(node: Node) -> str:
    """A click that is stored; its id."""
    client = Client(node.port)
    try:
        click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=2&aff_sub=m1&aff_click_id=c-1"))
    finally:
        client.close()

    async def is_stored() -> bool:
        return bool(await node.fetch("SELECT FROM clicks WHERE click_id = $1", uuid.UUID(click_id)))

    await eventually(is_stored, 20, node.describe)
    return click_id


async def counted(node: Node) -> tuple[int, ...]:
    """Rows that a conversion leaves behind."""
    tables = ("conversions", "conversion_changes", "conversion_keys", "conversions_waiting", "postback_outbox", "cap_usage")
    rows = await node.fetch("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))
    return tuple(rows[0].values()) if hasattr(rows[0], "values") else tuple(rows[0])


async def test_a_postback_is_tried_without_a_trace(node: Node) -> None:
    """The answer, the verdict with its reason, the money and what the partner would be sent; then nothing is there."""
    click_id = await click(node)
    before = await counted(node)
    where = ("--data-dir", node.data_dir)
    url = f"https://track.example.com/aff_lsr?transaction_id={click_id}&amount=49.90&security_token=hunter22"
    told = await command("postback-test", url, *ADVERTISER, *where)
    assert told.startswith("answer        200 success=true;\nread as       amount=49.90, transaction_id=")
    assert re.search(r"\nit would be stored as  .*  approved  \(status code 43, by postback, catalog revision 1\)\n", told)
    assert re.search(r"\n    payout +5\.000000\n", told)
    assert "\npartner 2 would be sent: GET https://partner.example.com/pb?cid=c-1&sub=m1&amount=5.00\n" in told
    assert told.endswith("\nnothing was recorded\n")
    assert "hunter22" not in told
    assert (await counted(node))[:5] == before[:5]
    told = await command("postback-test", url, "--from-ip", "192.0.2.9", *where)
    assert re.search(r"\nit would be stored as  .*  rejected because ip_not_allowed  ", told)
    assert "\nno partner would be told\n" in told


async def test_other_dialects_changes_and_caps_are_tried_as_they_would_be(node: Node) -> None:
    """In Voluum's words; an update of what is stored, by POST; another click's conversion beyond the cap."""
    click_id, other = await click(node), await click(node)
    where = ("--data-dir", node.data_dir)
    told = await command("postback-test", f"/postback?cid={click_id}&payout=7", *ADVERTISER, *where)
    assert "dialect=voluum" in told
    assert "rejected because bad_token" in told
    client = Client(node.port)
    try:
        await client.ask(f"/aff_lsr?transaction_id={click_id}&security_token=hunter22&amount=1")
    finally:
        client.close()

    async def is_stored() -> bool:
        return bool(await node.fetch("SELECT FROM conversions WHERE status = 'approved'"))

    await eventually(is_stored, 20, node.describe)
    before = await counted(node)
    query = "security_token=hunter22&amount=3&transaction_id="
    told = await command("postback-test", "/aff_lsr", "--data", query + click_id, *ADVERTISER, *where)
    assert re.search(r"\nit would change the conversion to  .*  approved  ", told)
    assert re.search(r"\n    amount +3\.000000\n", told)
    told = await command("postback-test", "/aff_lsr?" + query + other, *ADVERTISER, *where)
    assert re.search(r"\nit would be stored as  .*  rejected because capped  ", told)
    assert await counted(node) == before
    assert (await node.fetch("SELECT amount FROM conversions"))[0]["amount"] == 1


async def test_what_is_no_conversion_says_so(node: Node) -> None:
    """A forged id, a path that nobody knows, a click."""
    for url, said in (
        (f"/aff_lsr?transaction_id={FORGED}", "success=false; err_msg=Invalid Trans. ID"),
        ("/nothing/here/at/all", "answer        404"),
        ("/aff_c?offer_id=1&aff_id=2", "no conversion would be recorded"),
    ):
        assert said in await command("postback-test", url, "--data-dir", node.data_dir)


async def test_a_click_that_is_not_stored_would_be_waited_for(node: Node) -> None:
    """A genuine id of a worker whose journal nobody has seen."""
    secret = (node.data_dir / "secret").read_text().strip()
    click_id = ClickIds([secret], 0, 5, Unleased()).mint(now_ms()).hex()
    told = await command("postback-test", f"/aff_lsr?transaction_id={click_id}", "--data-dir", node.data_dir)
    assert "\nit would wait for its click, which is not stored (yet), until 20" in told
    assert "it would be stored as" not in told


async def test_a_partner_is_sent_a_sample_and_its_answer_is_shown(tmp_path: Path) -> None:
    """Each macro stands for something; the guard on addresses holds here too; no database is needed."""
    config = tmp_path / "settings.toml"
    config.write_text('postback_allow = ["127.0.0.0/8"]\n')
    async with PartnerServer().listening() as partner:
        partner.reply = say(200, "thank you")
        url = partner.origin + "/pb?cid={aff_click_id}&money={payout}&sub={aff_sub}&id={conversion_id}"
        told = await command("postback-test", url, "--config", config)
        assert "\nanswered      200 in " in told
        assert "thank you" in told
        assert "taken for delivered" in told
        [heard] = partner.heard
        assert {name: heard.query[name] for name in ("cid", "money", "sub")} == {
            "cid": "sample-click",
            "money": "5.00",
            "sub": "sample-sub1",
        }
        refused = await command("postback-test", url)
        assert "\nfailed        " in refused
        assert len(partner.heard) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is no postback's address"),
        (["/aff_lsr?x=1", "--from-ip", "here"], "--from-ip: 'here' is no address"),
        (["/aff_lsr", "--data", "{"], "the body is neither a form nor a flat JSON object"),
        (["ftp://partner.example/{payout}"], "the URL does not begin with http:// or https://"),
    ],
)
def test_what_cannot_be_tried_is_told_in_a_line(arguments: list[str], said: str) -> None:
    """Exit code 2, no traceback."""
    told = run("postback-test", *arguments, code=2)
    assert told.startswith("clickedge: ")
    assert said in told
