"""`clickedge explain` on a real node: which rule chose, which cap or check refused, what changed, what the partner was told."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.faults.load import Client, Reply, id_in
from tests.node import Node, eventually
from tests.partners import LOOPBACK, PartnerServer, in_turn, say
from tests.wire.test_commands import run

CATALOG = """
[[advertisers]]
id = 1
name = "open"

[[advertisers]]
id = 2
name = "with a token"
security_token = "s3cr3t"

[[partners]]
id = 2
name = "p"
postback_url = "{origin}/pb?payout={{payout}}"

[[offers]]
id = 1
advertiser_id = 1
name = "plain"
url = "https://shop.example.com/o1?clickid={{transaction_id}}&m={{aff_sub}}"
payout = "5"

[[offers]]
id = 3
advertiser_id = 1
name = "with rules"
url = "https://shop.example.com/o3?clickid={{transaction_id}}&m={{aff_sub}}"
redirect_offer_id = 1
landing_pages = [{{ id = 7, url = "https://shop.example.com/o3p7?clickid={{transaction_id}}&m={{aff_sub}}" }}]
rules = [
  {{ when = {{ source = ["mail"] }}, then = {{ landing_page_id = 7 }} }},
  {{ when = {{ source = ["spam"] }}, then = {{ reject = "no spam" }} }},
  {{ when = {{ source = ["social"] }}, then = {{ offer_id = 4 }} }},
]

[[offers]]
id = 4
advertiser_id = 1
name = "one click a day"
url = "https://shop.example.com/o4?clickid={{transaction_id}}&m={{aff_sub}}"
redirect_offer_id = 1
overrides = [{{ aff_id = 2, caps = {{ daily_clicks = 1 }} }}]

[[offers]]
id = 5
advertiser_id = 2
name = "one conversion"
url = "https://shop.example.com/o5?clickid={{transaction_id}}&m={{aff_sub}}"
caps = {{ total_conversions = 1 }}
cap_clicks = "allow"
payout = "2"
"""


@pytest.fixture
async def partner() -> AsyncIterator[PartnerServer]:
    """A partner's server."""
    async with PartnerServer().listening() as partner:
        yield partner


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node with that catalog for all tests that need no partner."""
    catalog = short_directory / "explained.toml"
    catalog.write_text(CATALOG.format(origin="http://127.0.0.1:9"))
    node = Node(short_directory / f"explained-{uuid4().hex[:8]}", catalog=catalog)
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


async def ask(node: Node, target: str) -> Reply:
    """The answer to one request."""
    client = Client(node.port)
    try:
        return await client.ask(target)
    finally:
        client.close()


async def click(node: Node, offer_id: int, more: str = "") -> str:
    """A stored click's id."""
    click_id = id_in(await ask(node, f"/aff_c?offer_id={offer_id}&aff_id=2&aff_sub=m{more}"))
    await stored(node, "SELECT FROM clicks WHERE click_id = $1", UUID(click_id))
    return click_id


async def stored(node: Node, query: str, *arguments: object) -> None:
    """Until the query finds something."""

    async def is_stored() -> bool:
        return bool(await node.fetch(query, *arguments))

    await eventually(is_stored, 20, node.describe)


async def told(node: Node, click_id: str, *command: str) -> str:
    """What a command prints about it, without this loop's partner waiting for it."""
    arguments: tuple[str | Path, ...] = (*(command or ("explain",)), click_id, "--data-dir", node.data_dir)
    return await asyncio.to_thread(lambda: run(*arguments))


async def test_the_rule_that_chose_or_refused_is_named(node: Node) -> None:
    """By its place and offer, with what it said; what clients claim about rules is no matter."""
    chosen = await told(node, await click(node, 3, "&source=mail&rule=9"))
    assert re.search(r"\n +rule +1 of offer 3 chose the page\n +offer +3\n +partner +2\n +landing page +7\n", chosen)
    refused = await told(node, await click(node, 3, "&source=spam"))
    assert "redirected because targeting" in refused
    assert re.search(r"\n +asked for +offer 3\n +rule +2 of offer 3 sent the click on or away\n", refused)
    assert re.search(r"\n +refused +no spam\n +offer +1\n", refused)
    assert "rule" not in await told(node, await click(node, 3, "&rule=1&rule_reason=mine"))


async def test_the_cap_that_a_click_met_is_named(node: Node) -> None:
    """Also of the offer that a rule sent the click to; a click before the cap was reached says nothing of it."""
    first = await click(node, 4)

    async def is_capped() -> bool:
        return "/o1?" in (await ask(node, "/aff_c?offer_id=4&aff_id=2&aff_sub=m")).headers["Location"]

    await eventually(is_capped, 20, node.describe)
    for offer_id, more in ((4, ""), (3, "&source=social")):
        story = await told(node, await click(node, offer_id, more))
        assert "redirected because capped" in story
        assert re.search(r"\n +cap +daily_clicks = 1 of partner 2 in offer 4, \d+ by now\n", story)
    assert " cap  " not in await told(node, first)


async def test_the_cap_or_check_that_a_conversion_met_is_named(node: Node) -> None:
    """The second beyond the cap, and one without its advertiser's token."""
    ids = [await click(node, 5) for _ in range(3)]
    for click_id, token in zip(ids, ("s3cr3t", "s3cr3t", "wrong"), strict=True):
        reply = await ask(node, f"/aff_lsr?transaction_id={click_id}&security_token={token}")
        assert reply.body == b"success=true;"
        await stored(node, "SELECT FROM conversions WHERE transaction_id = $1", click_id)
    approved, capped, refused = [await told(node, click_id) for click_id in ids]
    assert re.search(r"conversion 1  .*  approved  \(status code \d+, by postback", approved)
    assert re.search(r"conversion 1  .*  rejected because capped  \(status code 17,", capped)
    assert "beyond total_conversions = 1 of the offer\n" in capped
    assert re.search(r"conversion 1  .*  rejected because bad_token  ", refused)
    assert "the security_token is wrong\n" in refused
    assert not re.search("s3cr3t|postback  +approved", capped + refused)


async def test_what_changed_a_conversion_and_what_its_partner_was_told_is_shown(
    make_node: Callable[..., Node], tmp_path: Path, partner: PartnerServer
) -> None:
    """A 500, then a 200; a person's adjustment, with reason; in that order under the conversion."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(origin=partner.origin))
    node = await make_node(catalog=catalog, EDGE_POSTBACK_ALLOW=LOOPBACK, EDGE_POSTBACK_RETRY="1s").start()
    partner.reply = in_turn(say(500, "database is down"), say(200, "thanks"))
    click_id = await click(node, 1)
    await ask(node, f"/aff_lsr?transaction_id={click_id}&amount=80")
    await stored(node, "SELECT FROM postback_outbox WHERE state = 'delivered'")
    [row] = await node.fetch("SELECT conversion_id::text AS id FROM conversions")
    adjust = ("conversion", "adjust", "--payout", "4", "--reason", "agreed_correction", "--note", "by phone")
    assert "payout 5.000000 -> 4" in await told(node, row["id"], *adjust)
    story = await told(node, click_id)
    steps = (
        r"decided .*: ", r"adjusted .*because agreed_correction, .*payout now 4\.000000.*; by phone",
        r"postback +approved to partner 2 at 127\.0\.0\.1: delivered, 2 attempts", r"GET http://.*/pb\?payout=5\.00",
        r"answered 500 in \d+ ms: database is down", r"GET http://.*/pb\?payout=5\.00", r"answered 200 in \d+ ms: thanks",
    )  # fmt: skip
    assert re.search(".*?".join(steps), story, re.DOTALL)
