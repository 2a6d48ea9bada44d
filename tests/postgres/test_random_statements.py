"""Months closed and opened among random changes: each thing is stated once, and what is final stays as it is."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from edge.closing import close
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.statements.finding import find_statements
from edge.tracking.changes import TRANSITIONS, Wanted
from storage.postgres.months import closed_months, reopen_month
from storage.postgres.rollups import forget_rollups
from storage.postgres.stats import StatsKey
from tests.postgres.drains import Bench
from tests.recount import differences

STEPS = 40
Sums = dict[tuple[int, str], Decimal]


def tomorrow() -> datetime:
    """Late enough to close last month on its successor's first day."""
    return datetime.now(UTC) + timedelta(days=1)


async def spread_over_months(bench: Bench) -> list[date]:
    """As if the conversions had been decided in the four months before this one; those months and this."""
    key = ", ".join(StatsKey._fields[1:])
    await bench.conn.execute(
        "UPDATE conversion_changes SET booked_hour = date_trunc('month', now()) - make_interval(months => change_id::int % 4 + 1)"
        " + interval '5 days'"
    )
    await forget_rollups(bench.conn)
    await bench.conn.execute("DELETE FROM stats_hourly")
    await bench.conn.execute(
        f"INSERT INTO stats_hourly (hour, {key}, conversions, pending, rejected, amount, payout, revenue)"
        f" SELECT booked_hour, {key}, sum(conversions_delta), sum(pending_delta), sum(rejected_delta), sum(amount_delta),"
        f" sum(payout_delta), sum(revenue_delta) FROM conversion_changes JOIN conversions USING (conversion_id)"
        f" GROUP BY booked_hour, {key}"
    )
    this = datetime.now(UTC).date().replace(day=1)
    months = [this]
    for _ in range(4):
        months.insert(0, (months[0] - timedelta(days=1)).replace(day=1))
    return months


async def printed(bench: Bench, month: date) -> bytes:
    """All that a month's statements say."""
    return msgspec.json.encode(
        [await find_statements(bench.conn, month, party, now=tomorrow()) for party in ("partner", "advertiser")]
    )


async def stated(bench: Bench, months: list[date]) -> Sums:
    """The payouts of all statements together, by partner and currency."""
    sums: Sums = {}
    for month in months:
        for one in await find_statements(bench.conn, month, "partner", now=tomorrow()):
            for part in one.parts:
                sums[one.id, part.currency] = sums.get((one.id, part.currency), Decimal(0)) + part.total_exact
    return {key: value for key, value in sums.items() if value}


async def rolled_up(bench: Bench) -> Sums:
    """The same from the roll-ups."""
    rows = await bench.rows(
        "SELECT aff_id, currency, sum(payout) FROM stats_hourly WHERE aff_id <> 0 GROUP BY 1, 2 HAVING sum(payout) <> 0"
    )
    return {(row[0], row[1]): row[2] for row in rows}


class Player:
    """Makes one random step after another."""

    def __init__(self, bench: Bench, months: list[date], chance: random.Random) -> None:
        self._bench = bench
        self._months = months
        self._chance = chance

    async def step(self) -> None:
        """A change, a late click's earnings, a month closed or, seldom, opened."""
        kind = self._chance.choices((self._change, self._arrive_late, self._close, self._reopen), (10, 3, 3, 1))[0]
        await kind()

    async def _change(self) -> None:
        rows = await self._bench.rows("SELECT conversion_id, status FROM conversions ORDER BY conversion_id")
        conversion_id, status = self._chance.choice(rows)
        wanted: Any = self._chance.choice(["", *TRANSITIONS[status]]) if status in ("approved", "pending") else "approved"
        money = Decimal(self._chance.randrange(1, 10**7)) / 10**4
        await change_conversion(
            self._bench.conn, CatalogHistory(), UUID(int=conversion_id.int), Wanted(wanted, "other", payout=money), actor="x"
        )

    async def _arrive_late(self) -> None:
        """Only where a roll-up's row is; as a click that pays by itself."""
        await self._bench.conn.execute(
            "UPDATE stats_hourly SET gross_clicks = gross_clicks + 1, payout = payout + 0.0125 WHERE (hour, aff_id) ="
            " (SELECT hour, aff_id FROM stats_hourly ORDER BY hour, aff_id OFFSET $1 LIMIT 1)",
            self._chance.randrange(4),
        )

    async def _close(self) -> None:
        closed = {one.month for one in await closed_months(self._bench.conn, to_change=False)}
        if still_open := [month for month in self._months[:-1] if month not in closed]:
            await close(self._bench.conn, self._chance.choice(still_open[:2]), now=tomorrow(), actor="x", force=True)

    async def _reopen(self) -> None:
        if closed := await closed_months(self._bench.conn, to_change=False):
            await reopen_month(self._bench.conn, self._chance.choice(closed).month)


@pytest.mark.parametrize("seed", range(2))
async def test_statements_state_each_thing_once_whatever_happens(embedded_bench: Bench, seed: int) -> None:
    """After every step a final statement is what it was; in the end they add up to the roll-ups, to the last decimal."""
    scribe = embedded_bench.scribe()
    for number in range(12):
        scribe.convert(scribe.click(aff_id=2 + number % 2), goal_id=number % 2)
    await embedded_bench.drain()
    months = await spread_over_months(embedded_bench)
    player = Player(embedded_bench, months, random.Random(seed))
    final: dict[date, bytes] = {}
    for _ in range(STEPS):
        await player.step()
        closed = {one.month for one in await closed_months(embedded_bench.conn, to_change=False)}
        final = {month: final.get(month) or await printed(embedded_bench, month) for month in closed}
        assert final == {month: await printed(embedded_bench, month) for month in closed}
    for month in months[:-1]:
        if month not in final:
            await close(embedded_bench.conn, month, now=tomorrow(), actor="x", force=True)
    assert await stated(embedded_bench, months) == await rolled_up(embedded_bench) != {}
    assert [line for line in await differences(embedded_bench.conn) if "click" not in line and "payout" not in line] == []
