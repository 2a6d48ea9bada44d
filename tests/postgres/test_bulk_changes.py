"""Many conversions changed in one transaction, as a repeatable request does: each as by itself, and nobody waits in a ring."""

import asyncio
from decimal import Decimal
from uuid import UUID

from edge.admin.decisions import Decision, decide_each
from edge.drain.rows import hour_of
from storage.postgres.connection import Connection
from storage.postgres.stats import Deltas, StatsKey, upsert
from tests.node import eventually
from tests.postgres.drains import Bench
from tests.recount import differences

REVERSED = Decision(status="reversed", reason="fraud")


async def _conversions(bench: Bench, count: int) -> list[UUID]:
    scribe = bench.scribe()
    ids = [UUID(bytes=scribe.convert(scribe.click())) for _ in range(count)]
    await bench.drain()
    return ids


async def _add_as_a_drain(conn: Connection, bench: Bench, conversion_id: UUID) -> None:
    """What a batch does last: to the very row in which the conversion is booked."""
    key = ", ".join(StatsKey._fields[1:])
    row = await bench.conn.fetchrow(
        f"SELECT received_at, {key} FROM conversions WHERE conversion_id = $1", conversion_id
    )
    assert row is not None
    deltas = Deltas()
    deltas.add(StatsKey(hour_of(row[0]), *tuple(row)[1:]), conversions=0, impressions=0, cost=Decimal(1))
    deltas.add(StatsKey(hour_of(row[0]), *tuple(row)[1:]), cost=Decimal(-1), gross_clicks=0, pending=1)
    await upsert(conn, deltas)


async def test_a_drain_that_holds_one_of_them_never_waits_for_the_others(embedded_bench: Bench) -> None:
    """Who waits for a conversion holds no roll-up yet: the drain that has that conversion goes on to the end."""
    bench = embedded_bench
    first, second = await _conversions(bench, 2)
    person, drain = await bench.connect(), await bench.connect()
    batch = drain.transaction()
    await batch.start()
    await drain.execute("SELECT FROM conversions WHERE conversion_id = $1 FOR UPDATE", second)

    async def change() -> None:
        async with person.transaction():
            assert [one.problem for one in await decide_each(person, [first, second], REVERSED, "a")] == ["", ""]

    changing = asyncio.create_task(change())

    async def is_waiting() -> bool:
        return bool(await bench.value("SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))

    await eventually(is_waiting, 20)
    await asyncio.wait_for(_add_as_a_drain(drain, bench, first), 20)
    await batch.rollback()
    await changing
    assert await differences(bench.conn) == []


async def test_each_is_changed_as_by_itself(embedded_bench: Bench) -> None:
    """In one transaction or one by one: the same rows, and those that cannot be changed say the same."""
    bench = embedded_bench
    ids = await _conversions(bench, 3)
    [alone] = await decide_each(bench.conn, [ids[2]], REVERSED, "a")
    async with bench.conn.transaction():
        together = await decide_each(bench.conn, [ids[1], UUID(int=5), ids[2], ids[0], ids[1]], REVERSED, "a")
    assert [one.problem for one in together] == ["", "there is no such conversion", "it is reversed already", ""]
    assert [one.status for one in (alone, *together)] == ["reversed", "reversed", "", "", "reversed"]
    assert (
        len({one[1:] for one in await bench.rows("SELECT conversion_id, status, reason, payout FROM conversions")}) == 1
    )
    assert await differences(bench.conn) == []


async def test_a_refused_one_keeps_waiting_and_holds_no_key(embedded_bench: Bench) -> None:
    """Beside others that are approved, one whose click is unknown stays open to the click, which then decides it."""
    bench = embedded_bench
    scribe = bench.scribe()
    late = scribe.session()
    lost = UUID(bytes=scribe.convert(late.click_id))
    scribe.beat(int(late.click_id.hex()[:12], 16) + 10_000)
    await bench.drain()
    assert await bench.verdict(lost.bytes) == ("rejected", "unknown_click")
    [stored] = await _conversions(bench, 1)
    async with bench.conn.transaction():
        made = await decide_each(bench.conn, [lost, stored], Decision(status="approved"), "a")
    assert [bool(one.problem) for one in made] == [True, True]
    keys = await bench.rows("SELECT conversion_id FROM conversion_keys")
    assert keys == [(stored,)]
    scribe.click(late)
    await bench.drain()
    assert await bench.verdict(lost.bytes) == ("approved", "")
    assert await differences(bench.conn) == []
