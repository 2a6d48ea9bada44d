"""The sender in the test's own process, on a bench's database, and what the outbox then holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from edge.counters import Counters
from edge.processes import ChildOrders
from edge.sender.delivery import open_client
from edge.sender.process import Sender
from tests.partners import LOOPBACK
from tests.postgres.drains import CATALOG, Bench, make_settings


def partners_toml(text: str) -> str:
    """The drain tests' catalog, with `text` as more fields of partner 2."""
    head = 'id = 2\nname = "Deal Blog"\n'
    assert head in CATALOG
    return CATALOG.replace(head, f"{head}{text}\n")


@asynccontextmanager
async def sending(bench: Bench, *, client: aiohttp.ClientSession | None = None, **settings: Any) -> AsyncIterator[Sender]:
    """The real sender on the bench's database, until the end of the block; it then finishes as by SIGTERM."""
    values: dict[str, Any] = {"postback_allow": (LOOPBACK,), "postback_timeout_s": 5, "postback_retry_s": 1, **settings}
    given = make_settings(bench.data_dir, bench.url, **values)
    async with open_client(given.postback_networks, given.postback_timeout_s) as opened:
        sender = Sender(ChildOrders("sender", 0, given, -1, []), Counters.private(), client or opened)
        task = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            sender._stop.set()
            await task


async def states(bench: Bench) -> dict[str, int]:
    """How many rows of the outbox are in each state."""
    rows = await bench.conn.fetch("SELECT state, count(*) AS n FROM postback_outbox GROUP BY 1")
    return {row["state"]: row["n"] for row in rows}


async def hurry(bench: Bench) -> None:
    """Let the time until the next attempts pass."""
    await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now() WHERE leased_by IS NULL")
