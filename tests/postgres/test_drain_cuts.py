"""The wire to Postgres cut at every kind of message that a batch sends, in a loop, the drain reconnecting each time."""

from itertools import product

import pytest

from storage.postgres.connection import Connection
from tests.faults.scale import SCALE
from tests.postgres.drains import Bench, Scribe, compare, until
from tests.recount import differences
from tests.wire_proxy import Cut, Portion, WireProxy

PORTIONS: list[Portion] = ["nothing", "half", "all"]
CUTS = {
    "copy": [
        Cut(pattern, skip, portion)
        for pattern, skip, portion in product((b'COPY "clicks"', b'COPY "impressions"'), (0, 1, 2), PORTIONS)
    ]
    + [Cut(b'COPY "conversions"', skip, "all") for skip in (0, 1, 2)]
    + [Cut(b'COPY "conversion_changes"', skip, "half") for skip in (0, 1, 2)],
    "commit": [Cut(b"COMMIT;", 0, portion) for portion in PORTIONS] * 6,
    "cas": [Cut(b"UPDATE journal_positions", skip, portion) for skip, portion in product(range(7), PORTIONS)],
    "settling": [
        Cut(pattern, skip, portion)
        for pattern, skip, portion in product(
            (b"INTO conversion_keys", b"FROM conversions_waiting WHERE click_id", b"INTO stats_hourly"),
            (0, 2, 4),
            PORTIONS,
        )
    ],
}


def scribble(scribe: Scribe) -> None:
    """What every batch needs to send all of its messages: two clicks, an impression, a conversion of each kind."""
    first, _ = scribe.click(), scribe.click(aff_id=3)
    scribe.impression()
    scribe.convert(first)
    scribe.convert(first)
    scribe.convert(scribe.ids.mint(0))
    scribe.convert(b"", transaction_id="forged")
    scribe.beat(scribe.ids.floor(0))


async def assert_exact(bench: Bench, scribe: Scribe) -> None:
    """The rows are those of the events before the position, each once; the roll-ups are theirs."""
    async with bench.conn.transaction(isolation="repeatable_read"):
        position = await bench.position(scribe)
        for table, kind in (("clicks", "click"), ("impressions", "impression")):
            assert compare(await bench.ids(table), scribe.ids_before(position, kind)) == []
        waiting = await bench.ids("conversions_waiting WHERE decided_at IS NULL")
        decided = await bench.ids("conversions")
        assert compare(decided + waiting, scribe.ids_before(position, "conversion")) == []
    assert await differences(bench.conn) == []


async def is_at_end(bench: Bench, scribe: Scribe) -> bool:
    """Whether all that was written is stored."""
    return await bench.position(scribe) == scribe.writer.appended


@pytest.mark.faults
@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.timeout(120 * SCALE)
@pytest.mark.reliability(number=11)
async def test_a_cut_wire_neither_loses_nor_doubles_anything(bench: Bench, kind: str) -> None:
    """Cut before, within and after a message, its reply lost: what is stored is what lies before the position."""
    scribe = bench.scribe()
    async with (
        WireProxy(bench.url).listening() as proxy,
        bench.station(url=proxy.url, conversion_wait_s=3600).running(),
    ):
        scribble(scribe)
        await until(lambda: is_registered(bench.conn, scribe))
        for cut in CUTS[kind] * SCALE:
            proxy.arm(cut)
            scribble(scribe)
            await proxy.wait_cut()
            await assert_exact(bench, scribe)
            await until(lambda: is_at_end(bench, scribe))
        assert proxy.cuts == len(CUTS[kind]) * SCALE
        await assert_exact(bench, scribe)


async def is_registered(conn: Connection, scribe: Scribe) -> bool:
    """Whether the drain has found the journal."""
    query = "SELECT count(*) FROM journal_positions WHERE journal_id = $1"
    return bool(await conn.fetchval(query, scribe.writer.journal_id))
