"""Roll-ups equal a full recount after ten thousand random changes: drains, people and closings at once, months apart."""

import asyncio
import os
import random
from collections import Counter
from decimal import Decimal
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import ChangeReason, ChangeRefused, Wanted
from edge.tracking.months import span_of
from edge.tracking.status_codes import Status
from storage.postgres.connection import Connection
from storage.postgres.months import close_month, reopen_month
from tests.postgres.drains import CATALOG, Bench, Scribe, Station, now_ms
from tests.postgres.past import decide_in_the_past
from tests.recount import differences

MODES = ("reject", "new", "new_repeated", "update", "increment", "by_event_id")
TERMS = """
[[offers]]
id = %d
advertiser_id = 1
name = "offer"
url = "https://x.example/"
payout_type = "cpa_both"
payout = "1.25"
payout_percent = "7.5"
revenue_type = "cpa_both"
revenue = "2"
revenue_percent = "11"
duplicates = "%s"
approval = "%s"
tiers = [{ from_conversions = 20, payout = "2" }, { from_conversions = 200, payout_percent = "9.999" }]
[[offers.goals]]
id = 1
name = "lead"
"""
OFFERS = range(50, 50 + 2 * len(MODES))
ROUNDS, CHANGES = 6, 10_000
JOURNALS, PEOPLE = 2, 2


def catalog_text() -> str:
    """An offer of each mode, approved by itself and by hand, all with tiers."""
    kinds = [(mode, approval) for mode in MODES for approval in ("auto", "manual")]
    return CATALOG + "".join(TERMS % (number, *kind) for number, kind in zip(OFFERS, kinds, strict=True))


class Chaos:
    """What everybody does, by one seed."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.chance = random.Random(seed)
        self.clicks: list[bytes] = []
        self.sent: list[bytes] = []
        self.refused = 0

    def write(self, scribe: Scribe, count: int) -> None:
        """Clicks, first conversions and many later ones, in one worker's journal."""
        for _ in range(count):
            if not self.clicks or self.chance.random() < 0.15:
                self.clicks.append(scribe.click(offer_id=self.chance.choice(OFFERS), aff_id=self.chance.choice((2, 3))))
            self.sent.append(scribe.convert(self.chance.choice(self.clicks[-300:]), **self._parameters()))

    def _parameters(self) -> dict[str, Any]:
        chance, sent = self.chance, dict[str, Any]()
        if chance.random() < 0.8:
            sent["amount"] = f"{chance.randrange(0, 20000) / 100}"
        if chance.random() < 0.4:
            sent["status"] = chance.choice(get_args(Status))
        if chance.random() < 0.3:
            sent["adv_unique1"] = chance.choice("abc")
        if chance.random() < 0.1:
            sent["conversion_unique_id"] = f"order {chance.randrange(300)}"
        if chance.random() < 0.05:
            sent["amount"] = chance.choice(("999999999999", "1e9", "-1"))
        sent["goal_id"] = chance.choice((0, 0, 1))
        return sent

    async def decide(self, conn: Connection, count: int) -> None:
        """A person who approves, rejects, reverses and adjusts at random."""
        history = CatalogHistory()
        for _ in range(count):
            wanted = Wanted(
                self.chance.choice(("", "approved", "rejected", "reversed")),
                self.chance.choice(get_args(ChangeReason)[1:]),
                *(Decimal(self.chance.randrange(9999)) / 100 if self.chance.random() < 0.4 else None for _ in range(3)),
            )
            row = await conn.fetchrow(
                "SELECT conversion_id FROM conversions WHERE conversion_id >= $1 ORDER BY 1 LIMIT 1",
                self.chance.choice(self.stored),
            )
            try:
                await change_conversion(conn, history, row["conversion_id"], wanted, actor="somebody")
            except ChangeRefused:
                self.refused += 1

    async def close_and_open(self, conn: Connection, month: Any, stop: asyncio.Event) -> None:
        """The old month, closed and opened again and again."""
        span = span_of(month, ZoneInfo("UTC"))
        while not stop.is_set():
            await close_month(conn, *span, "somebody")
            await asyncio.sleep(self.chance.uniform(0, 0.05))
            await reopen_month(conn, month)

    async def look(self) -> None:
        """Which conversions are stored by now."""
        self.stored = [row[0] for row in await self.bench.rows("SELECT conversion_id FROM conversions")]


async def play_round(chaos: Chaos, scribes: list[Scribe], stations: list[Station], month: Any) -> None:
    """Two drains, two people and one who closes months, all at once."""
    conns = [await chaos.bench.connect() for _ in range(len(stations) + PEOPLE + 1)]
    for scribe in scribes:
        chaos.write(scribe, 900)
    stop = asyncio.Event()
    closing = asyncio.create_task(chaos.close_and_open(conns[-1], month, stop))
    await asyncio.gather(
        *map(Station.turn, stations, conns), *(chaos.decide(conn, 350) for conn in conns[len(stations) : -1])
    )
    stop.set()
    await closing
    for conn in conns:
        await conn.close()


async def unfound(chaos: Chaos) -> int:
    """Conversions that were sent and are neither stored nor named as the cause of a change."""
    found = await chaos.bench.rows(
        "SELECT conversion_id FROM conversions UNION ALL SELECT cause_id FROM conversion_changes WHERE cause_id IS NOT NULL"
    )
    assert len(found) == len(set(found))
    return len({one[0].bytes for one in found} ^ set(chaos.sent))


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_roll_ups_equal_a_recount_after_ten_thousand_random_changes(embedded_bench: Bench) -> None:
    """New conversions, updates, increments, statuses, people's changes, tiers, closings: everything still adds up."""
    bench = embedded_bench
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    chaos, revision = Chaos(bench, seed), await bench.apply(catalog_text())
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in range(JOURNALS)]
    stations = [bench.station(slot=slot, drains=JOURNALS, batch_rows=200) for slot in range(JOURNALS)]
    chaos.write(scribes[0], 1000)
    await bench.drain(stations[0], batch_rows=200)
    month = await decide_in_the_past(bench.conn, 40)
    rounds = 0
    while rounds < ROUNDS or await bench.value("SELECT count(*) FROM conversion_changes") < CHANGES:
        rounds += 1
        await chaos.look()
        await play_round(chaos, scribes, stations, month)
        assert await differences(bench.conn) == [], f"seed {seed}, round {rounds}"
    for scribe in scribes:
        scribe.beat(now_ms() + 1000)
    for station in [*stations, stations[0]]:  # what waits for a click that the other drain was just storing
        await bench.drain(station)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await unfound(chaos) == 0, f"seed {seed}"
    assert await differences(bench.conn) == [], f"seed {seed}"
    assert await miscounted(bench) == [], f"seed {seed}"
    kinds = Counter(dict(await bench.rows("SELECT kind, count(*) FROM conversion_changes GROUP BY 1")))
    assert min(kinds[kind] for kind in ("approved", "rejected", "reversed", "adjusted")) > 100, kinds
    assert await bench.value("SELECT count(DISTINCT date_trunc('month', booked_hour)) FROM conversion_changes") >= 2
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def miscounted(bench: Bench) -> list[tuple[Any, ...]]:
    """Tiers' counts that are not the sum of the changes of their month."""
    return await bench.rows(
        "SELECT offer_id, aff_id, month, tiers.conversions, sum(conversions_delta) FROM tier_counts AS tiers"
        " JOIN conversions USING (offer_id, aff_id) JOIN conversion_changes AS changes USING (conversion_id)"
        " WHERE date_trunc('month', booked_hour, 'UTC')::date = month GROUP BY 1, 2, 3, 4"
        " HAVING tiers.conversions <> sum(conversions_delta)"
    )
