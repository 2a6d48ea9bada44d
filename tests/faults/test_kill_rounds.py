"""Promise 1: kill -9 of any process at any moment loses nothing that was answered, and stores nothing twice.

A failed run is replayed with the seed that it printed: FAULT_SEED=… make faults PYTEST_ARGS=tests/faults/test_kill_rounds.py
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from edge.state_follower import STATE
from storage.postgres.connection import connect
from storage.postgres.rollups import begin_rollups, forget_rollups, rollup_state
from storage.state_file import read_state
from tests.faults.arrivals import faults_in, wait_until_stored, wait_until_told
from tests.faults.load import Say
from tests.faults.offers import RULED_OFFER, catalog_text
from tests.faults.scale import SCALE
from tests.faults.traffic import Ledger, Traffic
from tests.node import Node, eventually, is_running
from tests.partners import LOOPBACK, PartnerServer

WORKERS = 2
CHILDREN_GONE_S = 2.0
POSTGRES_GONE_S = 20.0
HEALED_S = 60.0
INSIDE = ["worker"] * 6 + ["drain"] * 6 + ["postmaster"] * 5 + ["backend"] * 4 + ["sender", "admin"] * 2
SETTINGS = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32", "EDGE_POSTBACK_ALLOW": LOOPBACK, "EDGE_POSTBACK_TIMEOUT": "2s",
    "EDGE_POSTBACK_RETRY": "1s",
}  # fmt: skip
WHOLE = ["supervisor"] * 5 + ["everything"] * 6


@pytest.fixture
async def partners() -> AsyncIterator[PartnerServer]:
    """Where all partners listen."""
    async with PartnerServer().listening() as partners:
        yield partners


@pytest.mark.faults
@pytest.mark.timeout(900 * SCALE)
@pytest.mark.parametrize("kinds", [INSIDE, WHOLE], ids=["one_process", "whole_node"])
@pytest.mark.reliability(number=1)
async def test_nothing_answered_is_lost_or_doubled_by_kills(
    make_node: Callable[..., Node], tmp_path: Path, partners: PartnerServer, say: Say, kinds: list[str]
) -> None:
    """Rounds of mixed load with a kill at a random moment: rows, verdicts, caps, roll-ups and what partners heard are right.

    The load has several vendors' postbacks, other systems' ids, rules and landing pages, and visitors who come again.
    """
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    say(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(catalog_text(partners.origin))
    node = await make_node(catalog=catalog, EDGE_WORKERS=str(WORKERS), **SETTINGS).start()
    await roll_up_ahead(node)
    ledger = Ledger()
    traffic = Traffic(node.port, ledger, seed)
    began_s = time.monotonic()
    for number, kind in enumerate(chance.sample(kinds * SCALE, len(kinds) * SCALE), 1):
        await play_round(node, traffic, kind, chance)
        faults = await count(node, ledger, {one.query["id"] for one in partners.heard})
        assert not faults, f"seed {seed}, round {number}, {kind}:\n" + "\n".join(faults) + "\n" + node.describe()
    hits, misses = [await node.metric("edge_session_lookups_total", result=result) for result in ("hit", "miss")]
    say(
        f"{len(kinds) * SCALE} rounds in {time.monotonic() - began_s:.0f} s, kills {dict(Counter(kinds))}; {ledger.sent} requests"
        f" {dict(traffic.kinds)}, {ledger.unanswered} of them unanswered; 0 lost, 0 doubled, roll-ups equal;"
        f" session hits {hits:.0f}, misses {misses:.0f} since the last start"
    )
    assert ledger.sent > 100 * len(kinds) * SCALE
    await expect_variety(node)
    assert await node.fetch("SELECT FROM stats_rollups WHERE gross_clicks > 0 AND payout > 0 LIMIT 1")
    assert await node.stop() == 0


async def roll_up_ahead(node: Node) -> None:
    """As if all hours until tomorrow were rolled up already: every batch adds to the coarser sums as well."""
    conn = await connect(node.database_url)

    async def has_begun() -> bool:
        return await rollup_state(conn) is not None

    try:
        await eventually(has_begun, 30)  # the node's own job, which would begin anew otherwise
        await forget_rollups(conn)
        await begin_rollups(conn, "UTC", datetime.now(UTC) + timedelta(days=1))
    finally:
        await conn.close()


async def play_round(node: Node, traffic: Traffic, kind: str, chance: random.Random) -> None:
    """Load, a kill in its midst, load until all is well again and a little longer; then all of it is stored."""
    traffic.knows_external_ids = (path := node.data_dir / STATE).exists() and read_state(path).has_external_ids
    stop = asyncio.Event()
    loading = asyncio.create_task(traffic.run(stop))
    try:
        await asyncio.sleep(chance.uniform(0.05, 1.5))
        await STRIKES[kind](node, chance)
        await eventually(lambda: is_whole(node), HEALED_S, node.describe)
        await node.wait_ready()
        await asyncio.sleep(chance.uniform(0.2, 0.6))
    finally:
        stop.set()
        await loading
    await wait_until_stored(node)
    await wait_until_told(node)


async def is_whole(node: Node) -> bool:
    """Whether all processes run."""
    counts = [len(node.pids(role)) for role in ("worker", "drain", "sender", "admin", "postgres")]
    return counts == [WORKERS, 1, 1, 1, 1]


async def count(node: Node, ledger: Ledger, heard: set[str]) -> list[str]:
    """What is wrong in Postgres by now."""
    conn = await asyncpg.connect(node.database_url)
    try:
        return await faults_in(conn, ledger, heard)
    finally:
        await conn.close()


async def expect_variety(node: Node) -> None:
    """The load met what it is there for: caps, rules, all pages, repeated visits, other systems' ids."""
    conversions = {row["reason"] for row in await node.fetch("SELECT DISTINCT reason FROM conversions")}
    assert conversions >= {"", "duplicate", "capped", "bad_token"}
    clicks = {row["reason"] for row in await node.fetch("SELECT DISTINCT reason FROM clicks")}
    assert clicks >= {"", "capped", "targeting", "offer_paused"}
    pages = await node.fetch("SELECT DISTINCT landing_page_id FROM clicks WHERE offer_id = $1", RULED_OFFER)
    assert {row["landing_page_id"] for row in pages} == {1, 2, 3}
    [row] = await node.fetch(
        "SELECT count(*) FILTER (WHERE 'duplicate' = ANY (flags)) AS again, count(*) AS clicks,"
        " (SELECT count(*) FROM external_ids) AS external FROM clicks"
    )
    assert 0 < row["again"] < row["clicks"]
    assert row["external"] > 0


async def kill_worker(node: Node, chance: random.Random) -> None:
    await await_gone(node, {node.kill("worker", chance.randrange(WORKERS))}, CHILDREN_GONE_S)


async def kill_drain(node: Node, chance: random.Random) -> None:
    await await_gone(node, {node.kill("drain")}, CHILDREN_GONE_S)


async def kill_sender(node: Node, chance: random.Random) -> None:
    await await_gone(node, {node.kill("sender")}, CHILDREN_GONE_S)


async def kill_admin(node: Node, chance: random.Random) -> None:
    await await_gone(node, {node.kill("admin")}, CHILDREN_GONE_S)


async def kill_postmaster(node: Node, chance: random.Random) -> None:
    await await_gone(node, {node.kill("postgres")}, CHILDREN_GONE_S)


async def kill_backend(node: Node, chance: random.Random) -> None:
    """One connection's process: the server then ends all others and recovers."""
    pid = chance.choice(node.backends())
    os.kill(pid, signal.SIGKILL)
    await await_gone(node, {pid}, CHILDREN_GONE_S)


async def kill_supervisor(node: Node, chance: random.Random) -> None:
    """Its children are gone within moments; a new one on the same ports and data dir comes up by itself."""
    postgres = {*node.pids("postgres"), *node.backends()}
    children = set(node.family()[1:]) - postgres
    await node.stop(signal.SIGKILL)
    node.launch()
    await asyncio.gather(await_gone(node, children, CHILDREN_GONE_S), await_gone(node, postgres, POSTGRES_GONE_S))


async def kill_everything(node: Node, chance: random.Random) -> None:
    """Every process of the node, in any order, as fast as they can be killed."""
    family = node.family()
    for pid in chance.sample(family, len(family)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await node.stop(signal.SIGKILL)
    node.launch()


async def await_gone(node: Node, pids: set[int], timeout_s: float) -> None:
    """Until none of these processes runs."""

    async def are_gone() -> bool:
        return not any(map(is_running, pids))

    await eventually(are_gone, timeout_s, node.describe)


STRIKES = {
    "worker": kill_worker,
    "drain": kill_drain,
    "sender": kill_sender,
    "admin": kill_admin,
    "postmaster": kill_postmaster,
    "backend": kill_backend,
    "supervisor": kill_supervisor,
    "everything": kill_everything,
}
