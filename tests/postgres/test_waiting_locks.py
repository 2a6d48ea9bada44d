"""A person decides conversions that a late click decides at the same moment: who comes second waits, and nobody in a ring."""

import asyncio
from decimal import Decimal
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import Order, change_conversions
from edge.tracking.changes import Wanted
from tests.postgres.drains import Bench, now_ms, until
from tests.recount import differences

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def test_a_late_click_and_a_person_take_what_waits_in_one_order(embedded_bench: Bench) -> None:
    """However its rows have come to lie: both go through, one after the other."""
    bench = embedded_bench
    clicker, other = bench.scribe(worker=0), bench.scribe(worker=1)
    session, station = clicker.session(), bench.station()
    first, second = (UUID(bytes=other.convert(session.click_id, conversion_unique_id=one)) for one in "ab")
    clicker.beat(now_ms() + 1000)
    await bench.drain(station)
    await bench.conn.execute(
        "UPDATE conversions_waiting SET decided_at = decided_at + interval '1s' WHERE conversion_id = $1", first
    )
    clicker.click(session)
    holder, person, drain = [await bench.connect() for _ in range(3)]
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM conversions_waiting WHERE conversion_id = $1 FOR UPDATE", first)
    order = Order(Wanted("approved", payout=Decimal(1), revenue=Decimal(2)), "a test")
    deciding = asyncio.create_task(change_conversions(person, CatalogHistory(), [first, second], order))
    await until(lambda: _is(bench, 1))
    draining = asyncio.create_task(station.turn(drain))
    await until(lambda: _is(bench, 2))
    await holder.execute("ROLLBACK")
    await asyncio.gather(deciding, draining)
    assert await bench.value("SELECT count(*) FROM conversions WHERE status = 'approved'") == 2
    assert await differences(bench.conn) == []


async def _is(bench: Bench, blocked: int) -> bool:
    return bool(await bench.value(BLOCKED) == blocked)
