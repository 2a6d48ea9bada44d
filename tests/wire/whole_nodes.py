"""What tests of whole nodes share: the settings beside a database URL, and a click."""

import re
from uuid import UUID

import aiohttp

from tests.node import Node

SECRET = "correct-horse-battery"
EXTERNAL = {"EDGE_SECRET": SECRET, "EDGE_NODE_ID": "7"}


async def click(session: aiohttp.ClientSession, node: Node) -> UUID:
    """The id of a new click."""
    async with session.get(f"{node.origin}/aff_c?offer_id=17&aff_id=2", allow_redirects=False) as answer:
        assert answer.status == 302
        found = re.search("clickid=([0-9a-f]{32})", answer.headers["Location"])
        assert found
        return UUID(found[1])
