"""What cannot be stored as what it says it is: cut out whole, its neighbours untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.journal.segments import name_segment
from storage.postgres.connection import Connection
from tests.postgres.drains import Bench, Scribe, compare, until
from tests.recount import differences

TOO_LATE_MS = 253_402_300_800_000
"""The first millisecond of the year 10000, which no column holds."""


@contextmanager
def counting_transactions(conn: Connection) -> Iterator[list[str]]:
    """The BEGINs that `conn` sends meanwhile."""
    begun: list[str] = []

    def note(query: Any) -> None:
        if query.query.startswith("BEGIN"):
            begun.append(query.query)

    with conn.query_logger(note):
        yield begun


def poisonous(scribe: Scribe, kind: str) -> bytes:
    """A record that decodes and that Postgres, or the way to it, does not take; its id."""
    if kind == "click with a NUL":
        return scribe.click(contact_id="a\0b")
    if kind == "click with a huge id":
        return scribe.click(aff_id=2**31)
    if kind == "click without address":
        return scribe.click(ip="not an address")
    if kind == "conversion with a NUL":
        return scribe.convert(b"", adv_sub1="a\0b")
    return scribe.convert(b"", ms=TOO_LATE_MS)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("click with a NUL", 0),
        ("click with a NUL", 999),
        ("click with a huge id", 637),
        ("click without address", 250),
        ("conversion with a NUL", 637),
        ("conversion in the year 10000", 500),
    ],
)
@pytest.mark.reliability(number=12)
async def test_one_bad_record_of_a_thousand_costs_itself_only(bench: Bench, kind: str, place: int) -> None:
    """999 stored, one in quarantine with its bytes and place, at most 21 transactions more than without it."""
    scribe = bench.scribe()
    bad = b""
    for number in range(1000):
        if number == place:
            bad = poisonous(scribe, kind)
            payload_at = scribe.written[-1].end
        elif number % 10 == 5:
            scribe.convert(scribe.written[-1].id if scribe.written[-1].kind == "click" else scribe.ids.mint(0))
        else:
            scribe.click()
    conn = await bench.connect()
    station = bench.station(batch_rows=1000, conversion_wait_s=0)
    await station.drain._feeds.discover(conn)
    await station.drain._store.partitions.ensure(conn, [datetime.now(UTC).date()])
    (feed,) = station.drain._feeds
    with counting_transactions(conn) as begun:
        await station.drain._advance(conn, feed)
    assert len(begun) <= 22
    stored = await bench.ids("clicks") + await bench.ids("conversions")
    assert len(stored) == 999
    assert compare(stored, [one.id for one in scribe.written if one.id != bad]) == []
    ((segment, offset, raw),) = await bench.rows("SELECT segment, byte_offset, raw FROM quarantine")
    assert segment == 1
    assert offset + 9 + len(raw) == payload_at.byte_offset
    assert await bench.position(scribe) == scribe.writer.appended
    assert await differences(bench.conn) == []


async def test_an_undecodable_payload_is_kept_whole(bench: Bench) -> None:
    """Bytes that are no event, an event of an unknown kind, one cut short: each in quarantine as it was."""
    scribe = bench.scribe()
    payloads = [b"\xc1", b"\x93\x09\x01\x02", b"no msgpack at all"]
    click_id = scribe.click()
    for payload in payloads:
        scribe.raw(payload)
    conversion = scribe.convert(click_id)
    await bench.drain()
    assert sorted(row[0] for row in await bench.rows("SELECT raw FROM quarantine")) == sorted(payloads)
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.position(scribe) == scribe.writer.appended


async def test_a_damaged_region_costs_only_what_it_covers(bench: Bench) -> None:
    """Bytes turned on the disk: that record goes to quarantine as it lies there, all others are stored and decided."""
    scribe = bench.scribe()
    before = scribe.click()
    start = scribe.writer.appended.byte_offset
    damaged = scribe.click()
    end = scribe.writer.appended.byte_offset
    after, conversion = scribe.click(), scribe.convert(before)
    with name_segment(scribe.writer.directory, 1).open("r+b") as file:
        file.seek(start + 40)
        file.write(b"\xff" * 8)
    await bench.drain()
    assert await bench.ids() == sorted([before, after])
    assert damaged not in await bench.ids()
    assert await bench.verdict(conversion) == ("approved", "")
    ((offset, size),) = await bench.rows("SELECT byte_offset, length(raw) FROM quarantine")
    assert (offset, offset + size) == (start, end)
    assert await differences(bench.conn) == []


async def test_a_partition_dropped_meanwhile_is_made_again(bench: Bench) -> None:
    """A row that finds no partition is no bad record: the drain tries again, and nothing is quarantined."""
    scribe = bench.scribe()
    first = scribe.click()
    async with bench.station().running():
        await until(lambda: _holds(bench, first))
        await bench.conn.execute(f"DROP TABLE clicks_{datetime.now(UTC):%Y%m%d}")
        second = scribe.click()
        await until(lambda: _holds(bench, second))
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def _holds(bench: Bench, click_id: bytes) -> bool:
    return click_id in await bench.ids()


async def test_ids_of_odd_days_are_stored_or_quarantined(bench: Bench) -> None:
    """1970, 2038, 2500: a partition each. Beyond the year 9999: quarantine. None stops the drain."""
    days = {"19700101": 5, "20380120": 2_147_558_400_000, "25000101": 16_725_225_600_000}
    scribe = bench.scribe()
    for ms in days.values():
        scribe.click(ms=ms)
    far = [scribe.click(ms=TOO_LATE_MS), scribe.click(ms=(1 << 48) - 2)]
    later = bench.scribe(worker=1)
    now = later.click()
    await bench.drain()
    stored = sorted(one.id for one in scribe.written if one.id not in far)
    assert await bench.ids() == sorted([*stored, now])
    assert await bench.value("SELECT count(*) FROM quarantine") == len(far)
    for day in days:
        assert await bench.value(f"SELECT count(*) FROM clicks_{day}") == 1
    assert await differences(bench.conn) == []
