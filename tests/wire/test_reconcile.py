"""The load tests' reconciliation: it agrees with a node that kept everything, and sees each row that is missing or too many."""

import aiohttp
import asyncpg

from benchmarks.mixed_traffic import MixedTraffic, Plan, Reply
from benchmarks.reconcile import reconcile, wait_until_drained
from tests.node import EXAMPLE_CATALOG, Node

REQUESTS = 400
INTERVAL_S = 0.05


async def test_reconciliation_finds_what_is_missing_doubled_or_misjudged(node: Node) -> None:
    """Mixed traffic is answered as it must be and stored as sent; then rows are tampered with, one after the other."""
    traffic = MixedTraffic(EXAMPLE_CATALOG, "run-1")
    faults = await send(node, traffic)
    assert not faults
    unstored = int(await node.metric("edge_unstored_refusals_total"))
    conn = await asyncpg.connect(node.database_url)
    try:
        await wait_until_drained(conn)
        found = await reconcile(conn, traffic.ledger, unstored)
        assert not found.faults
        assert all(row.sent == row.stored > 0 for row in found.rows)
        for change, fault in CHANGES.items():
            assert not any(line.startswith(fault) for line in found.faults)
            await conn.execute(change)
            found = await reconcile(conn, traffic.ledger, unstored)
            assert any(line.startswith(fault) for line in found.faults), (change, found.faults)
    finally:
        await conn.close()


CHANGES = {
    "UPDATE stats_hourly SET gross_clicks = gross_clicks + 1": "roll-ups: ",
    "DELETE FROM clicks WHERE click_id = (SELECT click_id FROM clicks WHERE flags = '{}' LIMIT 1)": "clicks: -1",
    "DELETE FROM impressions WHERE click_id = (SELECT click_id FROM impressions LIMIT 1)": "impressions: -1",
    "UPDATE clicks SET flags = '{}' WHERE 'bot' = ANY(flags)": "clicks by bots: -",
    "DELETE FROM conversions WHERE reason = 'forged_id'": "conversions forged: -",
    "INSERT INTO conversions SELECT (jsonb_populate_record(c, jsonb_build_object('conversion_id', gen_random_uuid()))).*"
    " FROM conversions AS c WHERE status = 'approved' LIMIT 1": "conversions approved: +1",
    "UPDATE conversions SET reason = 'capped' WHERE reason = 'duplicate'": "conversions duplicate: -",
}
"""Statements, run one after the other, and what the reconciliation says from then on."""


async def send(node: Node, traffic: MixedTraffic) -> list[str]:
    """The wrong answers. The traffic's clock runs ahead, so that conversions follow their clicks at once."""
    faults = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for number in range(REQUESTS):
            now_s = number * INTERVAL_S
            plan = traffic.next_plan(now_s)
            fault = traffic.settle(plan, await ask(session, node.origin, plan), now_s)
            faults += [f"{plan.kind}: {fault}"] if fault else []
    return faults


async def ask(session: aiohttp.ClientSession, origin: str, plan: Plan) -> Reply:
    async with session.request(
        plan.method, origin + plan.target, headers=plan.headers, data=plan.body or None, allow_redirects=False
    ) as answer:
        return Reply(answer.status, answer.headers, await answer.read())
