"""`replay`: a generated month decided again, by the rules that it had and by others. Nothing is written."""

import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from edge.drain import changing, settlement
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.drain.replay.figures import Tally
from edge.drain.replay.run import Asked, Replay, replay
from edge.erasing import Order, erase
from edge.tracking.changes import ChangeReason, ChangeRefused, Wanted
from edge.tracking.months import span_of
from edge.tracking.status_codes import Status
from edge.tracking.tombstones import Target, contact_target
from storage.postgres.months import close_month
from tests.postgres.drains import CATALOG, SECRET, Bench, Scribe, open_bench

MODES = ("reject", "new", "new_repeated", "update", "increment", "by_event_id")
OFFER = """
[[offers]]
id = %d
advertiser_id = %d
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
click_window = "2d"
caps = { daily_conversions = 9, monthly_payout = "300" }
cap_conversions = "%s"
tiers = [{ from_conversions = 4, payout = "2" }, { from_conversions = 9, payout_percent = "9.999" }]
promo_codes = [{ code = "XMAS", aff_id = 3, wins = true }]
[[offers.goals]]
id = 1
name = "lead"
payout = "0.50"
[[offers.overrides]]
aff_id = 3
payout = "1.75"
caps = { daily_conversions = 5 }
"""
OFFERS = range(50, 50 + 2 * len(MODES))
MONTH = datetime(2026, 9, 29, tzinfo=UTC)
NEW_TERMS_HOUR, CLOSING_HOUR = 30, 50


def catalog_text() -> str:
    """An offer of each mode, approved by itself and by hand, with caps and tiers; of two advertisers."""
    kinds = [(mode, approval) for mode in MODES for approval in ("auto", "manual")]
    offers = [
        OFFER % (number, 1 + place % 3 // 2, mode, approval, ("reject", "pending")[place % 2])
        for place, (number, (mode, approval)) in enumerate(zip(OFFERS, kinds, strict=True))
    ]
    return CATALOG.replace('allowed_ips = ["198.51.100.0/24"]', "") + "".join(offers)


class Clock(datetime):
    """The drain's clock, set by hand."""

    at = MONTH

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.at


class Month:
    """A month of everything that happens, day by day, by one seed."""

    def __init__(self, bench: Bench, scribe: Scribe, seed: int) -> None:
        self.bench = bench
        self.scribe = scribe
        self.chance = random.Random(seed)
        self.clicks: list[bytes] = []
        self.history = CatalogHistory()

    async def live(self, hours: range, events: int = 58) -> None:
        """At each of these hours of the month: clicks and conversions drained, then people."""
        station = self.bench.station()
        conn = await self.bench.connect()
        for hour in hours:
            Clock.at = MONTH + timedelta(hours=hour, minutes=59)
            start_ms = int((MONTH + timedelta(hours=hour)).timestamp() * 1000)
            for number in range(events):
                self._happen(start_ms + number * 60_000)
            await station.turn(conn)
            if hour == NEW_TERMS_HOUR:
                await self._change_terms(conn)
            if hour == CLOSING_HOUR:
                span = span_of(date(2026, 9, 1), ZoneInfo("UTC"))
                await close_month(conn, *span, "somebody")
            await self._decide(conn, events // 4)
        await conn.close()

    async def _change_terms(self, conn: Any) -> None:
        text = catalog_text().replace('payout = "1.25"', 'payout = "1.40"').replace("daily_conversions = 9", "daily_conversions = 7")
        self.scribe.revision = await self.bench.apply(text)
        times = "UPDATE catalog_revisions SET created_at = CASE revision WHEN 1 THEN $1::timestamptz ELSE $2 END"
        await conn.execute(times, MONTH, Clock.at)

    def _happen(self, ms: int) -> None:
        chance, scribe = self.chance, self.scribe
        if not self.clicks or chance.random() < 0.4:
            person: dict[str, Any] = {"contact_id": chance.choice(("ann", "bob"))} if chance.random() < 0.2 else {}
            place: dict[str, Any] = {"offer_id": chance.choice(OFFERS), "aff_id": chance.choice((2, 3))}
            self.clicks.append(scribe.click(ms=ms, **place, **person))
        params: dict[str, Any] = {"goal_id": chance.choice((0, 0, 0, 1))}
        if chance.random() < 0.8:
            params["amount"] = f"{chance.randrange(0, 20000) / 100}"
        if chance.random() < 0.25:
            params["status"] = chance.choice(get_args(Status))
        if chance.random() < 0.3:
            params["adv_unique1"] = chance.choice("abc")
        if chance.random() < 0.1:
            params["conversion_unique_id"] = f"order {chance.randrange(60)}"
        if chance.random() < 0.05:
            params["promo_code"] = "XMAS"
        if chance.random() < 0.03:
            params["amount"] = chance.choice(("999999999999", "1e9", "-1"))
        if chance.random() < 0.8:
            params["security_token"] = "s3cret"
        scribe.convert(chance.choice(self.clicks[-60:]), ms=ms + 30_000, **params)

    async def _decide(self, conn: Any, count: int) -> None:
        rows = await conn.fetch("SELECT conversion_id FROM conversions ORDER BY received_at DESC LIMIT 100")
        for _ in range(count):
            wanted = Wanted(
                self.chance.choice(("", "approved", "rejected", "reversed")),
                self.chance.choice(get_args(ChangeReason)[1:]),
                *(Decimal(self.chance.randrange(9999)) / 100 if self.chance.random() < 0.3 else None for _ in range(3)),
            )
            try:
                await change_conversion(conn, self.history, self.chance.choice(rows)[0], wanted, actor="somebody")
            except ChangeRefused:
                pass


@pytest.fixture
async def month(data_dir: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Month]:
    """Some days of a generated month."""
    monkeypatch.setattr(settlement, "datetime", Clock)
    monkeypatch.setattr(changing, "datetime", Clock)
    async with open_bench(data_dir, database, catalog_text()) as bench:
        made = Month(bench, bench.scribe(), 7)
        await made.live(range(0, 24 * 3, 5))
        yield made


async def played(month: Month, text: str = "", first_day: int = 0) -> Replay:
    """A replay from that day on."""
    conn = await month.bench.connect()
    first = MONTH.date() + timedelta(days=first_day)
    return await replay(conn, Asked(first, MONTH.date() + timedelta(days=40)), text, "changed.toml")


def changed(replayed: Replay) -> list[tuple[Any, ...]]:
    """What is not the same before and after."""
    return [
        (one.place, {kind: count for kind, count in one.difference.conversions.items() if count}, one.difference.payout)
        for one in replayed.compared
        if one.difference.has_any()
    ]


async def faults(month: Month, replaying: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Conversions that a replay leaves otherwise than they are stored."""
    left: dict[UUID, Any] = {}
    count_after = Tally.count_after

    def look(tally: Tally, before: Any, after: Any) -> None:
        left[after.conversion_id] = after
        count_after(tally, before, after)

    monkeypatch.setattr(Tally, "count_after", look)
    await replaying()
    monkeypatch.setattr(Tally, "count_after", count_after)
    rows = {row["conversion_id"]: row for row in await month.bench.conn.fetch("SELECT * FROM conversions")}
    assert left.keys() <= rows.keys()
    return [
        f"{id_} of offer {held.offer_id}: {name} is {rows[id_][name]}, replayed {getattr(held, name)}"
        for id_, held in left.items()
        for name in ("click_id", "offer_id", "aff_id", "goal_id", "status", "reason", "amount", "payout", "revenue", "tier")
        if rows[id_][name] != getattr(held, name)
    ]


@pytest.mark.timeout(180)
async def test_a_month_decided_again_by_its_own_rules_is_the_same_month(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caps, tiers, goals, overrides, every mode of duplicates, the advertiser's word, people: no difference at all."""
    kinds = await month.bench.rows(
        "SELECT kind, cause_id IS NULL FROM conversion_changes GROUP BY 1, 2 HAVING count(*) > 3"
    )
    assert len(kinds) >= 8, kinds
    reasons = await month.bench.rows("SELECT DISTINCT status, reason FROM conversions")
    assert {("rejected", "capped"), ("pending", "capped"), ("rejected", "duplicate"), ("reversed", "advertiser")} <= set(reasons)
    assert await month.bench.value("SELECT count(DISTINCT tier) FROM conversions") == 3
    whole = await played(month)
    assert changed(whole) == []
    stored = await month.bench.rows("SELECT count(*), sum(payout) FILTER (WHERE status = 'approved') FROM conversions")
    counted = [sum(sum(one.before.conversions.values()) for one in whole.total), sum(one.before.payout for one in whole.total)]
    assert counted == [*stored[0]]
    later = "SELECT count(*) FROM conversion_changes WHERE kind <> 'decided' AND booked_hour >= $1 AND conversion_id < $2"
    october = datetime(2026, 10, 1, tzinfo=UTC)
    assert await month.bench.value(later, october, UUID(int=round(october.timestamp() * 1000) << 80)) > 0
    for first_day in (0, 2):
        assert await faults(month, partial(played, month, first_day=first_day), monkeypatch) == []


@pytest.mark.timeout(180)
async def test_erased_people_make_no_difference(month: Month) -> None:
    """What they sent is gone: their conversions are what they are on both sides, and are counted apart."""
    people = [contact_target("ann"), *(Target("click", one) for one in month.clicks[::4])]
    await erase(month.bench.conn, Order(people, SECRET, "t"))
    erased = await month.bench.value("SELECT count(*) FROM conversions WHERE erased_at IS NOT NULL")
    replayed = await played(month)
    assert changed(replayed) == []
    assert sum(one.before.erased for one in replayed.total) == erased > 20
    stored = await month.bench.value("SELECT sum(payout) FROM conversions WHERE status = 'approved'")
    assert sum(one.after.payout for one in replayed.total) == stored
