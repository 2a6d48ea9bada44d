"""Partners' postbacks as the operator sees them: `explain`, `postback list`, `postback replay`, `/metrics`."""

import asyncio
import re
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.load import Client, id_in
from tests.node import Node, eventually
from tests.partners import LOOPBACK, PartnerServer, in_turn, say
from tests.wire.test_commands import run

CATALOG = """
[[advertisers]]
id = 1
name = "a"
[[partners]]
id = 2
name = "p"
postback_url = "{origin}/pb?cid={{aff_click_id}}&token=hunter22"
postback_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[[offers]]
id = 1
advertiser_id = 1
name = "o"
url = "https://shop.example.com/o1?clickid={{transaction_id}}&m={{aff_sub}}"
payout = "5"
"""


@pytest.fixture
async def partner() -> AsyncIterator[PartnerServer]:
    """A partner's server."""
    async with PartnerServer().listening() as partner:
        yield partner


@pytest.fixture
async def node(short_directory: Path, tmp_path: Path, partner: PartnerServer) -> AsyncIterator[Node]:
    """A node whose only partner is that one."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(origin=partner.origin))
    env = {"EDGE_POSTBACK_ALLOW": LOOPBACK, "EDGE_POSTBACK_RETRY": "1s"}
    node = Node(short_directory / f"told-{uuid.uuid4().hex[:8]}", catalog=catalog, env=env)
    try:
        yield await node.start()
        assert await node.stop() == 0
    finally:
        await node.stop(signal.SIGKILL)


async def convert(node: Node) -> str:
    """A click and its conversion; the click's id."""
    client = Client(node.port)
    try:
        click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=2&aff_sub=m1&aff_click_id=c-1"))
        assert (await client.ask(f"/aff_lsr?transaction_id={click_id}")).body == b"success=true;"
    finally:
        client.close()
    return click_id


async def command(*arguments: str | Path, code: int = 0) -> str:
    """What a command prints, without this loop's partner waiting for it."""
    return await asyncio.to_thread(lambda: run(*arguments, code=code))


async def has_state(node: Node, state: str) -> bool:
    """Whether some row of the outbox is in that state."""
    return bool(await node.fetch("SELECT FROM postback_outbox WHERE state = $1", state))


async def test_the_operator_sees_what_a_partner_was_told_and_tells_it_again(node: Node, partner: PartnerServer) -> None:
    """From the failure over the success to a replay by hand; secrets are in none of it."""
    partner.reply = in_turn(say(500, "database\x1b[2J is down"), say(410, "nobody here"), say(200, "thanks"))
    click_id = await convert(node)
    where = ("--data-dir", node.data_dir)
    await eventually(lambda: has_state(node, "dead"), 20, node.describe)
    story = await command("explain", click_id, *where)
    assert re.search(r"postback +approved to partner 2 at 127\.0\.0\.1: given up, 2 attempts\n", story)
    assert re.search(rf"GET {partner.origin}/pb\?cid=c-1&token=…\n +answered 500 in \d+ ms: database\[2J is down\n", story)
    assert re.search(r"answered 410 in \d+ ms: nobody here\n", story)
    listed = await command("postback", "list", "--failed", *where)
    [conversion_id] = re.findall(r"  ([0-9a-f]{32})  partner 2  approved  given up, 2 attempts  GET http", listed)
    assert await node.metric("edge_postbacks_total", result="dead") == 1
    assert await command("postback", "replay", conversion_id, *where) == "1 conversions, 1 postbacks queued\n"
    await eventually(lambda: has_state(node, "delivered"), 20, node.describe)
    story = await command("explain", click_id, *where)
    assert re.search(r"replaced by a replay, 2 attempts\n", story)
    assert re.search(r"delivered, 1 attempt, replay by \w+\n.*\n +answered 200 in \d+ ms: thanks\n", story)
    assert await command("postback", "list", "--failed", *where) == "none\n"
    assert (await command("postback", "list", *where)).count("\n") == 2
    assert [one.query for one in partner.heard] == [{"cid": "c-1", "token": "hunter22"}] * 3
    for shown in (story, listed, node.log_path.read_text(), await command("explain", "--json", click_id, *where)):
        assert "hunter22" not in shown
        assert "whsec_" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to replay"),
        (["nonsense"], "'nonsense' is no conversion's id"),
        (["--since", "yesterday"], "--since: 'yesterday' is no time; allowed: such as 2026-11-22T10:00"),
    ],
)
def test_a_replay_of_nothing_says_what_to_say(arguments: list[str], said: str) -> None:
    """One line, exit code 2; no database is needed for that."""
    told = run("postback", "replay", *arguments, code=2)
    assert told.startswith("clickedge: ")
    assert said in told
    assert told.count("\n") == 1


async def test_a_replay_finds_by_time_and_says_when_there_is_nothing(node: Node, partner: PartnerServer) -> None:
    """`--since` a moment ago: the conversion; since tomorrow, or of an id that nobody has: none."""
    click_id = await convert(node)
    where = ("--data-dir", node.data_dir)
    await eventually(lambda: has_state(node, "delivered"), 20, node.describe)
    assert await command("postback", "replay", "--since", "2020-01-01", *where) == "1 conversions, 1 postbacks queued\n"
    assert await command("postback", "replay", "--since", "2999-01-01", *where) == "0 conversions, 0 postbacks queued\n"
    assert await command("postback", "replay", "--dead", *where) == "0 conversions, 0 postbacks queued\n"
    assert (await command("postback", "replay", click_id, *where, code=1)).startswith("0 conversions")

    async def has_heard_twice() -> bool:
        return len(partner.heard) == 2

    await eventually(has_heard_twice, 20, node.describe)
