"""Promise 3: Postgres may be away, or absent at start: redirects go on at full speed, and everything arrives once."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.faults.arrivals import wait_until_stored
from tests.faults.gate import Gate
from tests.faults.load import MakeClient, Say, id_in, paced_clicks
from tests.faults.scale import SCALE
from tests.node import Node, eventually
from tests.recount import differences

AWAY_S = 60 * SCALE
CLICKS_PER_S = 2000
BEFORE_S = 8
MAX_GROWTH_KIB = 8 * 1024
AT_ONCE_S = 15.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

MakeNode = Callable[..., Node]


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def stored_clicks(url: str) -> list[tuple[str, str]]:
    """Mark and id of every stored click, after a look at the roll-ups."""
    conn = await asyncpg.connect(url)
    try:
        assert await differences(conn) == []
        return [(row[0], row[1].hex) for row in await conn.fetch("SELECT aff_sub1, click_id FROM clicks")]
    finally:
        await conn.close()


@pytest.mark.timeout(400 * SCALE)
@pytest.mark.reliability(number=13)
async def test_a_minute_without_postgres_costs_neither_a_redirect_nor_a_row(
    make_gated: MakeNode, gate: Gate, say: Say
) -> None:
    """2,000 clicks/s meanwhile: all redirected, as fast as before, in flat memory; then each is stored once."""
    # Few sessions are held, so that their memory is full before the outage and its growth is the outage's own.
    node = await make_gated(EDGE_SESSION_CAPACITY="5000").start()
    before = await paced_clicks(node.port, per_s=CLICKS_PER_S, seconds=BEFORE_S, prefix="b")
    worker = node.pids("worker")
    memory_kib = rss_kib(worker[0])
    await gate.shut()
    began_s = time.monotonic()
    away = await paced_clicks(node.port, per_s=CLICKS_PER_S, seconds=AWAY_S, prefix="a")
    took_s = time.monotonic() - began_s
    growth_kib = rss_kib(worker[0]) - memory_kib
    assert node.pids("worker") == worker
    assert before.others == away.others == []
    await gate.open()
    began_s = time.monotonic()
    await wait_until_stored(node, gate.behind, 150 * SCALE)
    drained_s = time.monotonic() - began_s
    clicks = before.clicks | away.clicks
    say(
        f"{len(away.clicks)} clicks in {took_s:.1f} s without Postgres ({len(away.clicks) / took_s:.0f}/s), stored"
        f" {drained_s:.1f} s after its return; p50/p99 before {before.percentile_ms(0.5):.2f}/"
        f"{before.percentile_ms(0.99):.2f} ms, away {away.percentile_ms(0.5):.2f}/{away.percentile_ms(0.99):.2f} ms;"
        f" worker {memory_kib / 1024:.1f} MiB, grew by {growth_kib / 1024:.2f} MiB"
    )
    stored = await stored_clicks(gate.behind)
    assert len(stored) == len(clicks) == CLICKS_PER_S * (BEFORE_S + AWAY_S)
    assert dict(stored) == clicks
    assert growth_kib < MAX_GROWTH_KIB
    assert away.percentile_ms(0.5) < before.percentile_ms(0.5) * 2 + 5
    # Nobody waits for a timeout of the database; how fast it is is for the benchmarks to say, on a quiet machine.
    assert away.percentile_ms(0.99) < before.percentile_ms(0.99) * 3 + 250
    assert await node.stop() == 0


@pytest.mark.reliability(number=16)
async def test_a_node_that_held_its_lease_redirects_at_once_without_postgres(
    make_gated: MakeNode, make_client: MakeClient, gate: Gate, say: Say
) -> None:
    """Started with Postgres away, on what is on disk: clicks and postbacks are taken, and stored when it is back."""
    node = await make_gated().start()
    assert await node.stop() == 0
    await gate.shut()
    began_s = time.monotonic()
    node.launch()
    client = make_client(node.port)

    async def is_answered() -> bool:
        try:
            return (await client.ask("/readyz")).status == 200
        except (OSError, EOFError):
            return False

    await eventually(is_answered, AT_ONCE_S, node.describe)
    say(f"a node without Postgres answered {time.monotonic() - began_s:.2f} s after its start")
    clicks = {}
    for number in range(50):
        mark = f"m{number}"
        clicks[mark] = id_in(await client.ask(f"/aff_c?offer_id=1&aff_id=1&aff_sub={mark}"))
    assert [(await client.ask(path)).status for path in ("/livez", "/readyz")] == [200, 200]
    postback = await client.ask(f"/aff_lsr?transaction_id={clicks['m0']}&adv_sub=x")
    assert postback.body == b"success=true;"
    assert "database_away" in node.describe()
    await gate.open()
    await node.wait_ready()
    await wait_until_stored(node, gate.behind)
    assert sorted(await stored_clicks(gate.behind)) == sorted(clicks.items())
    conn = await asyncpg.connect(gate.behind)
    rows = await conn.fetch("SELECT status, click_id FROM conversions")
    await conn.close()
    assert [(row["status"], row["click_id"].hex) for row in rows] == [("approved", clicks["m0"])]


async def test_a_fresh_data_dir_waits_for_its_first_lease(
    make_gated: MakeNode, make_client: MakeClient, gate: Gate
) -> None:
    """Nothing is answered before Postgres has leased the node's id; the click that waited is answered then."""
    await gate.shut()
    node = make_gated()
    node.launch()

    async def says_so() -> bool:
        return "worker_waiting" in node.describe() and "database_away" in node.describe()

    await eventually(says_so, 30, node.describe)
    client = make_client(node.port)
    click = asyncio.create_task(client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=early"))
    done, _ = await asyncio.wait([click], timeout=2)
    assert not done
    await gate.open()
    click_id = id_in(await click)
    await node.wait_ready()
    await wait_until_stored(node, gate.behind)
    assert await stored_clicks(gate.behind) == [("early", click_id)]
    assert await node.stop(signal.SIGTERM) == 0
