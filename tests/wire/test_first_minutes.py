"""What a new user does first: click the link, fire the postback, ask for the story."""

import asyncio
import re
import subprocess

import aiohttp

from tests.node import COMMAND, Node, eventually


async def test_a_click_redirects_and_its_postback_is_approved_once(node: Node) -> None:
    """A click leads to the offer with its id, the postback says success, and the database has both, decided."""
    async with aiohttp.ClientSession() as session:
        click = f"{node.origin}/aff_c?offer_id=17&aff_id=2&aff_sub=hello"
        async with session.get(click, allow_redirects=False) as answer:
            assert answer.status == 302
            found = re.fullmatch(
                r"https://shop\.example\.com/landing\?clickid=([0-9a-f]{32})&p=2&s=hello", answer.headers["Location"]
            )
            assert found
        for _ in range(2):
            async with session.get(f"{node.origin}/aff_lsr?transaction_id={found[1]}&amount=49.90") as answer:
                assert await answer.text() == "success=true;"

    async def is_decided() -> bool:
        return len(await node.fetch("SELECT FROM conversions")) == 2

    await eventually(is_decided, 10, node.describe)
    rows = await node.fetch("SELECT status, reason, payout FROM conversions ORDER BY conversion_id")
    assert [(row["status"], row["reason"]) for row in rows] == [("approved", ""), ("rejected", "duplicate")]
    command = [COMMAND, "explain", found[1], "--data-dir", node.data_dir]
    story = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert "approved" in story.stdout
    assert "rejected because duplicate" in story.stdout
    assert await node.stop() == 0
