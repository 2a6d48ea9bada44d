"""Caps at full load: clicks stop within the bound of docs/operations.md, conversions at the very cap."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from tests.cap_recount import cap_differences
from tests.faults.arrivals import wait_until_stored
from tests.faults.load import Client, MakeClient, Say, id_in
from tests.node import COMMAND, Node, eventually
from tests.recount import differences

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

CLICK_CAP = 3000
CONVERSION_CAP = 50
CONVERSIONS = 400
CONNECTIONS = 32
BATCH_INTERVAL_S, PUBLISH_S, FOLLOW_S = 0.2, 1.0, 0.25
SLACK_S = 0.5
"""For processes that wait for a core on a busy machine, and for the lag between two looks at it."""
AFTERWARDS_S = 2.0
LONGEST_S = 15.0
CATALOG = f"""
advertisers = [{{ id = 1, name = "A" }}]
partners = [{{ id = 1, name = "P" }}, {{ id = 2, name = "Q" }}]

[[offers]]
id = 1
advertiser_id = 1
name = "capped"
url = "https://shop.example.com/o1?clickid={{transaction_id}}&m={{aff_sub}}"
payout = "5"
revenue = "7.50"
redirect_offer_id = 2
caps = {{ daily_clicks = {CLICK_CAP}, total_conversions = {CONVERSION_CAP} }}
overrides = [{{ aff_id = 2, caps = {{ monthly_payout = "100" }} }}]

[[offers]]
id = 2
advertiser_id = 1
name = "stand-in"
url = "https://shop.example.com/o2?clickid={{transaction_id}}&m={{aff_sub}}"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """An offer with caps, and its stand-in."""
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG)
    return path


class Load:
    """Clicks on offer 1 as fast as they are answered; when each was, and whether the offer took it."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.redirected: list[float] = []
        self.began_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        now_s = time.monotonic()
        is_settled = bool(self.redirected) and now_s > max(self.taken[-1], self.redirected[0]) + AFTERWARDS_S
        return is_settled or now_s > self.began_s + LONGEST_S

    async def click(self, client: Client) -> None:
        """One connection's part."""
        while not self.is_over:
            reply = await client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=m")
            is_taken = reply.headers["Location"].startswith("https://shop.example.com/o1?")
            (self.taken if is_taken else self.redirected).append(time.monotonic())


@asynccontextmanager
async def watching_lag(node: Node) -> AsyncIterator[list[float]]:
    """The drain's lag, looked at again and again meanwhile."""
    seen = [0.0]

    async def watch() -> None:
        while True:
            seen.append(await node.metric("edge_drain_lag_seconds"))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_two_workers_at_full_load_overshoot_within_the_written_bound(
    make_node: Callable[..., Node], make_client: MakeClient, catalog: Path, say: Say
) -> None:
    """Clicks beyond a cap: at most rate x (batch interval + drain lag + 1 s + 0.25 s); all counted, the rest redirected."""
    node = await make_node(catalog=catalog, EDGE_WORKERS="2").start()
    load = Load()
    async with watching_lag(node) as lags:
        await asyncio.gather(*(load.click(make_client(node.port)) for _ in range(CONNECTIONS)))
    late_s = load.taken[-1] - load.taken[CLICK_CAP - 1]
    overshoot = len(load.taken) - CLICK_CAP
    rate = (len(load.taken) - 1) / (load.taken[-1] - load.taken[0])
    bound_s = BATCH_INTERVAL_S + max(lags) + PUBLISH_S + FOLLOW_S + SLACK_S
    say(f"caps: {rate:.0f} clicks/s, {overshoot} beyond {CLICK_CAP}, {late_s:.2f} s; bound {bound_s:.2f} s\n")
    assert load.redirected, "the cap never stopped anything"
    assert late_s <= bound_s
    assert overshoot <= rate * bound_s
    await wait_until_stored(node)
    [used] = await node.fetch("SELECT clicks FROM cap_usage WHERE offer_id = 1 AND period = 'daily'")
    stored = await node.fetch("SELECT offer_id, reason, count(*) FROM clicks GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row) for row in stored] == [(1, "", len(load.taken)), (2, "capped", len(load.redirected))]
    assert used["clicks"] == len(load.taken)
    assert await node.stop() == 0


async def _is_taken(client: Client) -> bool:
    reply = await client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=m")
    return reply.headers["Location"].startswith("https://shop.example.com/o1?")


async def test_what_is_capped_stays_so_over_kills_until_the_catalog_says_otherwise(
    make_node: Callable[..., Node], make_client: MakeClient, catalog: Path
) -> None:
    """A killed worker's successor reads the file; a raised cap opens the offer, whoever was killed meanwhile."""
    catalog.write_text(CATALOG.replace(f"daily_clicks = {CLICK_CAP}", "daily_clicks = 3"))
    node = await make_node(catalog=catalog).start()
    client = make_client(node.port)

    async def is_closed() -> bool:
        return not await _is_taken(client)

    await eventually(is_closed, 20)
    killed = node.kill("worker")

    async def has_successor() -> bool:
        return node.pids("worker") not in ([], [killed])

    await eventually(has_successor, 20)
    client.close()
    assert not await _is_taken(client)
    node.kill("admin")
    catalog.write_text(CATALOG)
    applied = await asyncio.create_subprocess_exec(COMMAND, "apply", str(catalog), "--data-dir", str(node.data_dir))
    assert await applied.wait() == 0
    await eventually(lambda: _is_taken(client), 20)
    assert await node.stop() == 0


async def test_use_equals_the_rows_over_kills(
    make_node: Callable[..., Node], make_client: MakeClient, catalog: Path
) -> None:
    """Drains and database killed while conversions come in: exactly the cap is approved, all usage is what the rows say."""
    catalog.write_text(CATALOG.replace("redirect_offer_id = 2", 'cap_clicks = "allow"'))
    node = await make_node(catalog=catalog, EDGE_WORKERS="2", EDGE_DRAINS="2", EDGE_BATCH_ROWS="20").start()
    is_over = asyncio.Event()

    async def fire(client: Client) -> int:
        sent = 0
        while not is_over.is_set():
            click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=2&aff_sub=m"))
            sent += (await client.ask(f"/aff_lsr?transaction_id={click_id}")).body == b"success=true;"
        return sent

    async def has_more_than(count: int) -> bool:
        try:
            [row] = await node.fetch("SELECT count(*) FROM conversions")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return bool(row["count"] > count)

    firing = [asyncio.create_task(fire(make_client(node.port))) for _ in range(8)]
    stored = 0
    for role in ("drain", "drain", "postgres", "admin"):
        await eventually(partial(has_more_than, stored), 60, node.describe)
        [row] = await node.fetch("SELECT count(*) FROM conversions")
        stored = row["count"] + 20
        node.kill(role)
    is_over.set()
    sent = sum(await asyncio.gather(*firing))
    await wait_until_stored(node)
    conn = await asyncpg.connect(node.database_url)
    counts = dict(await conn.fetch("SELECT status, count(*) FROM conversions GROUP BY 1"))
    assert await cap_differences(conn) == []
    assert await differences(conn) == []
    await conn.close()
    assert counts == {"approved": 20, "rejected": sent - 20}
    assert await node.stop() == 0


async def test_two_workers_and_two_drains_accept_exactly_the_cap(
    make_node: Callable[..., Node], make_client: MakeClient, catalog: Path
) -> None:
    """Whoever decides: of 400 conversions told at once 50 are approved, 20 of the capped partner's at most."""
    catalog.write_text(CATALOG.replace("redirect_offer_id = 2", 'cap_clicks = "allow"'))
    node = await make_node(catalog=catalog, EDGE_WORKERS="2", EDGE_DRAINS="2").start()
    clients = [make_client(node.port) for _ in range(CONNECTIONS)]

    async def fire(number: int, client: Client) -> list[bytes]:
        replies = []
        for _ in range(CONVERSIONS // CONNECTIONS + 1):
            click_id = id_in(await client.ask(f"/aff_c?offer_id=1&aff_id={number % 2 + 1}&aff_sub=m"))
            replies.append((await client.ask(f"/aff_lsr?transaction_id={click_id}")).body)
        return replies

    replies = [body for some in await asyncio.gather(*map(fire, range(CONNECTIONS), clients)) for body in some]
    assert Counter(replies) == {b"success=true;": len(replies)}
    await wait_until_stored(node)
    conn = await asyncpg.connect(node.database_url)
    rows = await conn.fetch("SELECT aff_id, status, reason, count(*) FROM conversions GROUP BY 1, 2, 3")
    used = await conn.fetch("SELECT aff_id, conversions, payout FROM cap_usage WHERE period IN ('total', 'monthly')")
    keys = await conn.fetchval("SELECT count(*) FROM conversion_keys")
    assert await differences(conn) == []
    await conn.close()
    approved = {row["aff_id"]: row["count"] for row in rows if row["status"] == "approved"}
    assert sum(approved.values()) == CONVERSION_CAP
    assert approved.get(2, 0) <= 20
    assert {(row["status"], row["reason"]) for row in rows} == {("approved", ""), ("rejected", "capped")}
    assert sum(row["count"] for row in rows) == len(replies)
    assert {row["aff_id"]: (row["conversions"], int(row["payout"])) for row in used} == {
        0: (CONVERSION_CAP, 5 * CONVERSION_CAP),
        2: (approved.get(2, 0), 5 * approved.get(2, 0)),
    }
    assert keys == CONVERSION_CAP
    assert await node.stop() == 0
