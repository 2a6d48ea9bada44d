"""The soak's reckoning: it agrees with a node that kept everything, and sees each row that is missing, doubled or wrong."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from benchmarks.reconcile import wait_until_drained
from benchmarks.soak import ledger
from benchmarks.soak.reckoning import reckon
from benchmarks.soak.traffic import SoakTraffic
from benchmarks.soak.visiting import Visiting
from tests.node import EXAMPLE_CATALOG, Node

REQUESTS = 600
INTERVAL_S = 0.05
CHANGES = {
    "UPDATE stats_hourly SET gross_clicks = gross_clicks + 1": "roll-ups: ",
    "DELETE FROM impressions WHERE click_id = (SELECT click_id FROM impressions LIMIT 1)": "1 clicks and impressions are missing",
    "INSERT INTO impressions SELECT (jsonb_populate_record(i, jsonb_build_object('click_id',"
    " overlay(i.click_id::text placing '0000' from 33)::uuid))).* FROM impressions AS i LIMIT 1": "1 impressions are stored twice",
    "UPDATE conversions SET adv_sub4 = 'nobody' WHERE conversion_id = (SELECT conversion_id FROM conversions"
    " WHERE reason = 'duplicate' LIMIT 1)": "a row has the mark 'nobody'",
    "UPDATE conversions SET status = 'approved', reason = '' WHERE reason = 'duplicate'": "of the conversions of ",
    "DELETE FROM conversions WHERE reason = 'forged_id'": "forged ids: ",
    "DELETE FROM conversions WHERE conversion_id = (SELECT conversion_id FROM conversions WHERE status = 'approved'"
    " AND goal_id = 0 LIMIT 1)": "1 conversions approved were answered and are not stored",
}
"""Statements, run one after the other, and what the reckoning says from then on."""


async def test_the_soak_counts_what_is_missing_doubled_or_misjudged(node: Node, tmp_path: Path) -> None:
    """Marked traffic, bad requests among it, is stored as it was answered; then rows are tampered with."""
    entries = ledger.read([await asyncio.to_thread(play, node.port, tmp_path)])
    assert {one.outcome for one in entries.values()} == {ledger.OK}
    assert {one.kind for one in entries.values()} >= {"clicks", "impressions", "conversions duplicate", "bad request"}
    unstored = int(await node.metric("edge_unstored_refusals_total"))
    conn = await asyncpg.connect(node.database_url)
    try:
        await wait_until_drained(conn)
        told = await approved(conn)
        found = await reckon(conn, entries, dropped=0, unstored=unstored, told=told)
        assert found.faults == []
        assert found.counts["clicks"].stored == found.counts["clicks"].sent > 100
        deaf = await reckon(conn, entries, dropped=1, unstored=unstored + 1, told={**told, "of-nobody": 1})
        assert len(deaf.faults) == 3, deaf.faults
        for change, fault in CHANGES.items():
            before = (await reckon(conn, entries, dropped=0, unstored=unstored, told=told)).faults
            assert not any(line.startswith(fault) for line in before), (change, before)
            await conn.execute(change)
            after = (await reckon(conn, entries, dropped=0, unstored=unstored, told=told)).faults
            assert any(line.startswith(fault) for line in after), (change, after)
    finally:
        await conn.close()


def play(port: int, directory: Path) -> Path:
    """The traffic's clock runs ahead, so that conversions follow their clicks at once; the ledger."""
    path = directory / "load.ledger"
    visiting = Visiting(("127.0.0.1", port), SoakTraffic(EXAMPLE_CATALOG, "s1", 1), ledger.Writer(path))
    for number in range(REQUESTS):
        visiting.visit(number * INTERVAL_S)
    visiting.close()
    return path


async def approved(conn: asyncpg.Connection) -> Mapping[str, int]:
    """As if every conversion's partner had heard of it once."""
    rows = await conn.fetch("SELECT conversion_id FROM conversions WHERE status = 'approved'")
    return {row["conversion_id"].hex: 1 for row in rows}
