"""The sender in the test's own process, on a bench's database, and what the outbox then holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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
async def sending(
    bench: Bench, *, url: str = "", retries_at_once: bool = False, **settings: Any
) -> AsyncIterator[Sender]:
    """The real sender on the bench's database, until the end of the block; it then finishes as by SIGTERM.

    `retries_at_once`: as if the time until the next attempt had passed.
    """
    values: dict[str, Any] = {"postback_allow": (LOOPBACK,), "postback_timeout_s": 5, "postback_retry_s": 1, **settings}
    if retries_at_once:
        values["postback_retry_s"] = 0
    given = make_settings(bench.data_dir, url or bench.url, **values)
    async with open_client(given.postback_networks, given.postback_timeout_s) as client:
        sender = Sender(ChildOrders("sender", 0, given, -1, []), Counters.private(), client)
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


async def log_of(bench: Bench) -> list[Any]:
    """All attempts that were logged, in order."""
    return list(await bench.conn.fetch("SELECT * FROM postback_log ORDER BY outbox_id, attempt"))
