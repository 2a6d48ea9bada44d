"""Conversions that waited and cannot be stored, or were overtaken by their click: nobody else pays for them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from edge.drain.settle import Settled
from edge.drain.storing import Store
from storage.postgres.connection import Connection
from storage.postgres.stats import Deltas
from tests.postgres.drains import Bench, now_ms, until
from tests.recount import differences


async def test_a_waiting_conversion_that_cannot_be_stored_is_set_aside_alone(embedded_bench: Bench) -> None:
    """Its wait ends in quarantine; the good one that is due in the same pass is decided."""
    bench = embedded_bench
    clicker, other = bench.scribe(worker=0), bench.scribe(worker=1)
    bad = other.convert(clicker.ids.mint(0), adv_sub1="a\0b")
    good = [other.convert(clicker.ids.mint(0)) for _ in range(5)]
    station, conn = bench.station(), await bench.connect()
    await station.turn(conn)
    clicker.beat(now_ms() + 1000)
    for _ in range(8):
        await station.turn(conn)
    assert {await bench.verdict(one) for one in good} == {("rejected", "unknown_click")}
    assert await bench.value("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL") == 0
    rows = await bench.rows("SELECT segment, error, raw FROM quarantine")
    assert [(segment, error.startswith("waiting conversion: ")) for segment, error, _ in rows] == [(0, True)]
    assert bad in rows[0][2]
    assert await differences(bench.conn) == []


async def test_a_click_is_stored_though_what_waited_for_it_cannot_be(embedded_bench: Bench) -> None:
    """The click is innocent; the conversion goes into quarantine by itself."""
    bench = embedded_bench
    clicker, other = bench.scribe(worker=0), bench.scribe(worker=1)
    session = clicker.session()
    other.convert(session.click_id, adv_sub1="a\0b")
    station, conn = bench.station(), await bench.connect()
    await station.turn(conn)
    clicker.click(session)
    await station.turn(conn)
    assert await bench.ids() == [session.click_id]
    clicker.beat(now_ms() + 1000)
    for _ in range(4):
        await station.turn(conn)
    assert await bench.rows("SELECT segment FROM quarantine") == [(0,)]
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0


async def test_a_click_stored_in_the_moment_of_the_deadline_still_counts(
    embedded_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One drain calls the click unknown while another stores it: the next chore decides anew."""
    bench = embedded_bench
    clicker, other = bench.scribe(worker=0), bench.scribe(worker=1)
    session = clicker.session()
    conversion = other.convert(session.click_id)
    late, early = bench.station(slot=1, drains=2), bench.station(slot=0, drains=2)
    late_conn, early_conn = await bench.connect(), await bench.connect()
    await late.turn(late_conn)
    clicker.click(session)
    await bench.conn.execute("UPDATE conversions_waiting SET deadline = now()")
    write, storing = Store._write, []

    async def write_slowly(self: Store, conn: Connection, settled: Settled, deltas: Deltas) -> None:
        if conn is late_conn:  # it has looked and found no click: the other drain stores it now, and waits for the row
            storing.append(asyncio.create_task(early.turn(early_conn)))
            await until(lambda: bench.value("SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))
        await write(self, conn, settled, deltas)

    monkeypatch.setattr(Store, "_write", write_slowly)
    await late.drain._store.settle_due(late_conn)
    await asyncio.gather(*storing)
    monkeypatch.undo()
    assert await bench.verdict(conversion) == ("rejected", "unknown_click")
    await late.drain._store.settle_overtaken(late_conn, datetime.now(UTC) - timedelta(minutes=1))
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await differences(bench.conn) == []
