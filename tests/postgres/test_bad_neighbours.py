"""One journal, record or waiting conversion that is at fault costs itself only: the others are stored, and none is lost."""

from uuid import UUID

import msgspec
import pytest

from edge.drain import storing
from storage.journal.events import Conversion, decode, encode
from storage.postgres.connection import Connection
from storage.postgres.conversions import Recalled, recall_due
from tests.postgres.drains import Bench, Scribe, now_ms, until
from tests.recount import differences


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


async def test_a_journal_that_cannot_be_read_does_not_keep_the_drain_from_the_others(bench: Bench) -> None:
    """The disk fails under the oldest one: it is tried again and again, and nothing of it is passed over."""
    unreadable, other = bench.scribe(worker=0), bench.scribe(worker=1)
    first = unreadable.click()
    segment = unreadable.writer.directory / "00000001.log"
    segment.rename(bench.data_dir / "aside")
    segment.mkdir()
    async with bench.station().running():
        second = other.click()
        await until(lambda: _holds(bench, second))
        assert await bench.ids() == [second]
        segment.rmdir()
        (bench.data_dir / "aside").rename(segment)
        await until(lambda: _holds(bench, first))
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def _holds(bench: Bench, click_id: bytes) -> bool:
    return click_id in await bench.ids()


FAULTS = {
    "no session at all": {"session": b"\xc1"},
    "a session of another form": {"session": b"\x91\x07"},
    "a session without an id": {"session": encode([b"", 1, 17, 2, 0, 0, "", "", ""])},
    "half an id": {"click_id": b"\x01\x9a"},
    "no conversion id": {"conversion_id": b""},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_conversion_that_no_worker_writes_goes_to_quarantine_alone(bench: Bench, fault: str) -> None:
    """Another release did, or somebody who may write to the stream: its neighbours are stored and decided."""
    scribe = bench.scribe()
    click = scribe.click()
    before, after = scribe.convert(click), b""
    event = decode(_payload(scribe, click))
    payload = encode(msgspec.structs.replace(event, **FAULTS[fault]))
    scribe.raw(payload)
    after = scribe.convert(scribe.click())
    await bench.drain()
    assert [await bench.verdict(one) for one in (before, after)] == [("approved", "")] * 2
    assert [row[0] for row in await bench.rows("SELECT raw FROM quarantine")] == [payload]
    assert await bench.position(scribe) == scribe.writer.appended
    assert await differences(bench.conn) == []


def _payload(scribe: Scribe, click: bytes) -> bytes:
    return encode(
        Conversion(scribe.ids.mint(now_ms()), 1, now_ms(), "postback", click.hex(), click, b"", 0, 0, {}, "", "", "")
    )


async def test_all_waiting_conversions_of_a_millisecond_that_cannot_be_decided_are_kept(bench: Bench) -> None:
    """A burst of postbacks, none of which this release can read: each lies in quarantine, whole."""
    clicker, scribe = bench.scribe(worker=0), bench.scribe(worker=1)
    click, ms = clicker.session().click_id, now_ms() + 1000
    ids = [scribe.ids.mint(ms) for _ in range(3)]
    for one in ids:
        event = Conversion(one, 1, ms, "postback", click.hex(), click, b"", 0, 0, {"adv_sub1": "a\0b"}, "", "", "")
        scribe.raw(encode(event), "conversion", one)
    station = bench.station()
    await bench.drain(station)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 3
    clicker.beat(now_ms() + 60_000)
    await bench.drain(station)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    raw = [decode(row[0]) for row in await bench.rows("SELECT raw FROM quarantine")]
    assert sorted(one.conversion_id for one in raw if isinstance(one, Conversion)) == ids


async def test_of_waiting_conversions_only_the_one_at_fault_is_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another drain looks at the same one at that moment: nobody sets aside what is merely next."""
    clickers, scribe = [bench.scribe(worker=worker) for worker in (0, 2)], bench.scribe(worker=1)
    clicks = [clicker.session().click_id for clicker in clickers]
    bad, good = scribe.convert(clicks[0], adv_sub1="a\0b"), scribe.convert(clicks[1])
    station, conn, rival = bench.station(), await bench.connect(), await bench.connect()
    await station.turn(conn)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 2
    for clicker in clickers:
        clicker.beat(now_ms() + 60_000)
    looks: list[int] = []

    async def recall_beside_a_rival(conn: Connection, limit: int) -> list[Recalled]:
        looks.append(limit)
        if looks.count(1) == 2:  # the first that failed is given back, and taken by the rival
            await rival.execute("BEGIN")
            await rival.execute("DELETE FROM conversions_waiting WHERE conversion_id = $1", UUID(bytes=bad))
        return await recall_due(conn, limit)

    monkeypatch.setattr(storing, "recall_due", recall_beside_a_rival)
    for feed in station.drain._feeds:
        await station.drain._advance(conn, feed)
    await station.drain._store.settle_due(conn)
    await rival.execute("ROLLBACK")
    monkeypatch.undo()
    await station.turn(conn)
    assert await bench.verdict(good) == ("rejected", "unknown_click")
    kept = [decode(row[0]) for row in await bench.rows("SELECT raw FROM quarantine")]
    assert [one.conversion_id for one in kept if isinstance(one, Conversion)] == [bad]
