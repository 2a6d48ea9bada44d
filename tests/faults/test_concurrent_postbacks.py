"""One click, one sale, told a thousand times at once to two workers: it is paid once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from edge.tracking.click_id import worker_of
from tests.faults.arrivals import wait_until_stored
from tests.faults.load import Client, MakeClient, id_in
from tests.node import Node
from tests.recount import differences

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

POSTBACKS = 1000
CONNECTIONS = 250


@pytest.mark.parametrize("drains", ["1", "2"])
@pytest.mark.reliability(number=26)
async def test_of_a_thousand_simultaneous_postbacks_one_is_approved(
    make_node: Callable[..., Node], make_client: MakeClient, catalog: Path, drains: str
) -> None:
    """Through two workers, by one drain or two: 1,000 times success, one approved conversion, 999 duplicates."""
    node = await make_node(catalog=catalog, EDGE_WORKERS="2", EDGE_DRAINS=drains).start()
    clients = [make_client(node.port) for _ in range(CONNECTIONS)]
    click_id = id_in(await clients[0].ask("/aff_c?offer_id=1&aff_id=1&aff_sub=one"))

    async def fire(client: Client) -> list[bytes]:
        target = f"/aff_lsr?transaction_id={click_id}&amount=10"
        return [(await client.ask(target)).body for _ in range(POSTBACKS // CONNECTIONS)]

    replies = await asyncio.gather(*map(fire, clients))
    assert Counter(body for some in replies for body in some) == {b"success=true;": POSTBACKS}
    await wait_until_stored(node)
    conn = await asyncpg.connect(node.database_url)
    rows = await conn.fetch("SELECT conversion_id, click_id, status, reason, payout, status_code FROM conversions")
    assert await differences(conn) == []
    await conn.close()
    assert Counter((row["status"], row["reason"], str(row["payout"])) for row in rows) == {
        ("approved", "", "5.000000"): 1,
        ("rejected", "duplicate", "0.000000"): POSTBACKS - 1,
    }
    assert {row["click_id"].hex for row in rows} == {click_id}
    assert {worker_of(row["conversion_id"].bytes) for row in rows} == {0, 1}
    assert await node.stop() == 0
