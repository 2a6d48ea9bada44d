"""Alerts that only minutes of a fault raise, fired by a living node in a hurry: tests.ops.hurried makes the minutes seconds."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.faults.gate import Gate
from tests.faults.load import Client, id_in
from tests.faults.offers import TOKEN_OFFER, catalog_text
from tests.faults.traffic import Ledger, Traffic
from tests.faults.watching import Watch, stopped
from tests.node import COMMAND, Node, eventually
from tests.ops.hurried import hurried_prometheus
from tests.partners import LOOPBACK, PartnerServer
from tests.partners import say as answer

pytestmark = [pytest.mark.faults, pytest.mark.debian("prometheus"), pytest.mark.timeout(240)]

GOOD, BAD_AT_ONCE = 300, 20
LATE = {"EdgeDrainLagging", "EdgeDrainStopped"}
HELD_UP = {"EdgeJournalSyncSlow", "EdgeLatencyBurn", "EdgeLoopLag"}
RAISED = {"EdgeCatalogBehind", "EdgePostbacksBacklog", "EdgeRejectRateJump", *LATE, *HELD_UP}


@pytest.fixture
def catalog(tmp_path: Path, partner: PartnerServer) -> Path:
    """The catalog of the load, with a partner who listens."""
    path = tmp_path / "catalog.toml"
    path.write_text(catalog_text(partner.origin))
    return path


@pytest.fixture
async def node(make_gated: Callable[..., Node]) -> Node:
    """Two workers."""
    return await make_gated(EDGE_WORKERS="2", EDGE_POSTBACK_ALLOW=LOOPBACK).start()


@pytest.fixture
async def watch(node: Node, tmp_path: Path) -> AsyncIterator[Watch]:
    """A look at what fires in a hurry."""
    with hurried_prometheus(tmp_path, [node.admin.removeprefix("http://")]) as hurried:
        async with Watch(None, hurried).looking() as watch:
            yield watch


async def test_rejected_conversions_and_postbacks_that_nobody_takes(
    node: Node, watch: Watch, partner: PartnerServer
) -> None:
    """Good conversions first, then those with a wrong token; and a partner who is down."""
    client = Client(node.port)
    for _ in range(GOOD):
        click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=good"))
        assert (await client.ask(f"/aff_lsr?transaction_id={click_id}")).body == b"success=true;"
        await asyncio.sleep(0.03)  # ten seconds' worth, which the next ones are compared with
    assert "EdgeRejectRateJump" not in watch.fired
    await asyncio.sleep(9)  # what is compared with ends 8 s ago
    partner.reply = answer(500)
    click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=late"))
    await client.ask(f"/aff_lsr?transaction_id={click_id}")
    click_id = id_in(await client.ask(f"/aff_c?offer_id={TOKEN_OFFER}&aff_id=1&aff_sub=bad"))

    async def is_seen() -> bool:
        for _ in range(BAD_AT_ONCE):
            await client.ask(f"/aff_lsr?transaction_id={click_id}&security_token=wrong")
        return not watch.lacking("EdgeRejectRateJump")

    await eventually(is_seen, 60, node.describe)
    client.close()
    await watch.sees("EdgePostbacksBacklog", within_s=60)


async def test_processes_that_stand_still(node: Node, watch: Watch, catalog: Path, gate: Gate) -> None:
    """A worker that does not take the new catalog, a drain that stores nothing, and workers that stop again and again under load."""
    worker = node.pids("worker")[0]
    with stopped([worker]):
        catalog.write_text(catalog.read_text().replace('payout = "5.00"', 'payout = "5.50"'))
        environ = {**os.environ, "EDGE_DATABASE_URL": gate.behind}
        applied = await asyncio.create_subprocess_exec(COMMAND, "apply", catalog, env=environ)
        assert await applied.wait() == 0
        await watch.sees("EdgeCatalogBehind")
    stop, ledger = asyncio.Event(), Ledger()

    async def is_seen() -> bool:
        with stopped(node.pids("worker")):
            await asyncio.sleep(0.4)  # the fault itself
        return not watch.lacking(*HELD_UP)

    traffic = asyncio.create_task(Traffic(node.port, ledger, seed=9, clients=24).run(stop))
    try:
        with stopped(node.pids("drain")):
            await watch.sees(*LATE)
        await eventually(is_seen, 90, lambda: str(watch.lacking(*HELD_UP)))
    finally:
        stop.set()
        await traffic
    assert ledger.faults == []
