"""An erasure beside whoever stores at the same moment, and one that is cut off: nothing of a person is left behind."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edge.drain.tombstone_file import TombstoneFile
from edge.erasing import Eraser, Order, erase
from edge.tracking.tombstones import address_target, contact_target
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.erasures import shut_out_drains
from tests.postgres import erased_people as people
from tests.postgres.drains import SECRET, Bench, now_ms, until

ADDRESS = Order([address_target(people.ADDRESS)], SECRET, "tester")
BOTH = Order([contact_target(people.CONTACT), *ADDRESS.targets], SECRET, "tester")


async def _is_waited_for(bench: Bench, task: "asyncio.Task[Any]") -> None:
    """Until the task waits for an advisory lock, or is over without."""

    async def is_so() -> bool:
        waiting = await bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
        return task.done() or bool(waiting)

    await until(is_so)


async def test_a_copy_of_a_click_made_while_it_is_erased_goes_too(embedded_bench: Bench) -> None:
    """Who copies has seen the click and not committed yet: the erasure waits for it, and takes the copy."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    scribe.convert(scribe.click(ip=people.ADDRESS, params={"aff_sub1": f"{people.WORD}-sub"}))
    await bench.drain()
    copier, eraser = await bench.connect(), await bench.connect()
    copying = copier.transaction()
    await copying.start()
    assert await copy_converted_clicks(copier, datetime.now(UTC) - timedelta(days=1)) == 1
    erasing = asyncio.create_task(erase(eraser, ADDRESS))
    await _is_waited_for(bench, erasing)
    await copying.commit()
    await erasing
    assert await people.places_of(bench.conn) == set()


async def test_a_sale_that_has_looked_up_a_click_as_it_goes_loses_its_names_too(
    embedded_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the click says whose it is; its batch begins after the order was given, and ends after the click was found."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    click = scribe.click(ip=people.ADDRESS)
    await bench.drain()
    sale = scribe.convert(click, adv_sub1=f"{people.WORD}-customer", ip="192.0.2.9")
    blocker, eraser = await bench.connect(), await bench.connect()
    held = blocker.transaction()
    await held.start()
    await blocker.execute("LOCK TABLE conversion_changes IN EXCLUSIVE MODE")  # which the batch comes to after its look-up
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'conversion_changes'::regclass"
    run, draining = Eraser.run, list[asyncio.Task[int]]()

    async def run_beside_a_batch(self: Eraser) -> None:
        draining.append(asyncio.create_task(bench.drain()))
        await until(lambda: blocker.fetchval(waiting))
        await run(self)

    monkeypatch.setattr(Eraser, "run", run_beside_a_batch)
    erasing = asyncio.create_task(erase(eraser, ADDRESS))
    await _is_waited_for(bench, erasing)
    await held.rollback()
    await asyncio.gather(erasing, *draining)
    assert await bench.verdict(sale) == ("approved", "")
    assert await people.places_of(bench.conn) == set()


async def test_a_drain_that_decides_what_waited_stands_in_no_ring_with_an_erasure(embedded_bench: Bench) -> None:
    """The lock comes before the rows, as for the erasure."""
    bench = embedded_bench
    scribe = bench.scribe(worker=1)
    scribe.convert(scribe.ids.mint(now_ms()), ip="192.0.2.9")
    station, conn, eraser = bench.station(), await bench.connect(), await bench.connect()
    await station.drain._feeds.discover(conn)
    for feed in station.drain._feeds:
        await station.drain._advance(conn, feed)
    await bench.conn.execute("UPDATE conversions_waiting SET deadline = now() - interval '1 s'")
    async with eraser.transaction():
        await shut_out_drains(eraser)
        settling = asyncio.create_task(station.drain._store.settle_due(conn))
        await _is_waited_for(bench, settling)
        assert len(await eraser.fetch("SELECT FROM conversions_waiting FOR UPDATE NOWAIT")) == 1
    assert await settling == 1


async def test_erasing_again_that_was_cut_off_is_taken_up_at_the_next_start(
    embedded_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restored database has the erasures by then, and still the rows."""
    bench = embedded_bench
    people.person(bench.scribe(worker=1))
    await bench.drain()
    await bench.conn.execute("CREATE TABLE kept AS SELECT * FROM clicks")
    await erase(bench.conn, BOTH)
    await TombstoneFile(bench.data_dir, (SECRET,)).restore(bench.conn)
    await bench.conn.execute("TRUNCATE erasures; INSERT INTO clicks SELECT * FROM kept; DROP TABLE kept")

    async def lose_the_connection(self: Eraser) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(Eraser, "run", lose_the_connection)
        with pytest.raises(ConnectionResetError):
            await TombstoneFile(bench.data_dir, (SECRET,)).restore(bench.conn)
    assert await bench.value("SELECT count(*) > 1 FROM erasures")
    assert await people.places_of(bench.conn) != set()
    await TombstoneFile(bench.data_dir, (SECRET,)).restore(bench.conn)
    assert await people.places_of(bench.conn) == set()
    assert [path.name for path in bench.data_dir.glob("erasures*")] == ["erasures"]
