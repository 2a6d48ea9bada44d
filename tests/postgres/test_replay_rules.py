"""`replay` under changed rules: each rule's effect on a small day, worked out by hand; and nothing written."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from edge.cli.replay import as_data, as_rows
from edge.drain.replay.figures import Figures
from edge.drain.replay.run import Asked, Replay, replay
from edge.erasing import Order, erase
from edge.errors import UserError
from edge.tracking.tombstones import Target
from storage.postgres.replays import open_snapshot
from tests.postgres.drains import CATALOG, SECRET, Bench, now_ms, open_bench
from tests.wire.test_postback_commands import command

SHOP = CATALOG.replace('revenue = "7.50"\n', 'revenue = "7.50"\nclick_window = "10d"\nminutes = 0\n', 1).replace("minutes = 0\n", "")
OFFER_18 = """
[[offers]]
id = 18
advertiser_id = 1
name = "Stand-in"
url = "https://other.example/"
payout_type = "cpc"
payout = "0.10"
revenue_type = "cpc"
revenue = "0.20"
"""
OFFER_17 = SHOP[SHOP.index("[[offers]]") :]
PARTNER_2 = '[[partners]]\nid = 2\nname = "Deal Blog"\n'


def offer(*fields: str, **replaced: str) -> str:
    """Offer 17 with more fields, or others in place of those it has."""
    text = OFFER_17
    for name, value in replaced.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        text = text.replace(old, f"{name} = {value}", 1)
    return text.replace("[[offers.goals]]", "\n".join((*fields, "[[offers.goals]]")), 1)


class Day:
    """Seven clicks of today: five of partner 2, of which one is a bot's, two of one cookie, first partner 3's then 2's."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.today = datetime.now(UTC).date()

    async def happen(self) -> None:
        """The first click converts twice, the next two once, the second with a lead; the cookie's by its last click."""
        scribe, start = self.bench.scribe(), now_ms() - 5000
        clicks = [scribe.click(ip=f"198.51.100.{number}", ms=start + number) for number in range(4)]
        scribe.click(ip="198.51.100.9", flags=["prefetch"], ms=start + 10)
        first = scribe.click(aff_id=3, ip="192.0.2.1", ms=start + 20)
        last = scribe.click(aff_id=2, ip="192.0.2.1", visitor=first, ms=start + 30)
        scribe.convert(clicks[0], amount="10")
        scribe.convert(clicks[0], amount="30")
        scribe.convert(clicks[1])
        scribe.convert(clicks[1], goal_id=1)
        scribe.convert(clicks[2])
        scribe.convert(last)
        await self.bench.drain()

    async def ask(self, text: str, **asked: Any) -> Replay:
        """Yesterday and today by the rules of `text`."""
        conn = await self.bench.connect()
        try:
            return await replay(conn, Asked(self.today - timedelta(days=1), self.today, **asked), text, "changed.toml")
        finally:
            await conn.close()

    async def differences(self, text: str) -> dict[tuple[int, int], Figures]:
        """Of each offer and partner that is not the same."""
        found = (await self.ask(text)).compared
        return {one.place[:2]: one.difference for one in found if one.difference.has_any()}


def told(figures: Figures | None) -> dict[str, Any]:
    """What is not nothing."""
    if figures is None:
        return {}
    counts = {f"{one} {reason}".strip(): n for one_of in (figures.clicks, figures.conversions) for (one, reason), n in one_of.items() if n}
    money = {name: str(value.normalize()) for name in ("amount", "payout", "revenue") if (value := getattr(figures, name))}
    return {**counts, **money}


@pytest.fixture
async def day(database: str, data_dir: Path) -> AsyncIterator[Day]:
    """That day, drained."""
    async with open_bench(data_dir, database, SHOP + OFFER_18) as bench:
        day = Day(bench)
        await day.happen()
        yield day


async def fingerprint(conn: asyncpg.Connection) -> dict[str, Any]:
    """Every row of every table and the place of every sequence."""
    tables = await conn.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = {
        name: await conn.fetchval(f"SELECT count(*) || md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {name} AS t")
        for (name,) in tables
    }
    return found | {row[0]: row[1] for row in await conn.fetch("SELECT sequencename, last_value FROM pg_sequences")}


async def test_what_each_rule_would_have_changed(day: Day) -> None:
    """Money, duplicates, windows, approval, caps, partners, goals, first touch: as worked out by hand."""
    assert await day.differences("") == {}
    assert await day.differences(SHOP + OFFER_18) == {}
    assert await day.differences((SHOP + OFFER_18).replace('name = "', 'name = "New ')) == {}  # each is sent again

    async def of_2(text: str) -> dict[str, Any]:
        return told((await day.differences(text)).get((17, 2)))

    assert await of_2(offer(payout='"6.25"', revenue='"7"')) == {"payout": "5", "revenue": "-2"}
    assert await of_2(offer('duplicates = "new"')) == {
        "approved": 1, "rejected duplicate": -1, "amount": "3E+1", "payout": "5", "revenue": "7.5",
    }  # fmt: skip
    assert await of_2(offer('duplicates = "increment"')) == {"rejected duplicate": -1, "amount": "3E+1"}
    assert await of_2(offer('approval = "manual"')) == {
        "approved": -5, "pending": 5, "amount": "-1E+1", "payout": "-21", "revenue": "-31.5",
    }  # fmt: skip
    assert (await of_2(offer("min_seconds_to_convert = 3600")))["rejected too_soon"] == 6
    assert await of_2(offer("caps = { daily_conversions = 2 }")) == {
        "approved": -3, "rejected capped": 3, "payout": "-11", "revenue": "-16.5",
    }  # fmt: skip
    tiers = 'tiers = [{ from_conversions = 3, payout = "9" }]'
    assert await of_2(offer(tiers)) == {"payout": "8"}  # the third was a lead, with a payout of its own
    blocked = await day.differences(PARTNER_2 + 'status = "blocked"\n')
    assert told(blocked[17, 2])["rejected partner_blocked"] == 6
    assert told(blocked[17, 2])["redirected partner_blocked"] == 6
    first = await day.differences(offer('attribution = "first"'))
    assert told(first[17, 2]) == {"approved": -1, "payout": "-5", "revenue": "-7.5"}
    assert told(first[17, 3]) == {"approved": 1, "payout": "6", "revenue": "7.5"}


async def test_where_clicks_would_have_gone(day: Day) -> None:
    """Paused, targeted, capped, paid by click; a bot's click moves with the others and earns nothing."""
    paused = await day.differences(offer('status = "paused"', "redirect_offer_id = 18"))
    assert told(paused[17, 2]) == {"redirected": -6}
    assert told(paused[18, 2]) == {"redirected offer_paused": 6, "payout": "0.5", "revenue": "1"}
    rule = 'rules = [{ when = { device = ["desktop"] }, then = { reject = "no desktops" } }]'
    assert told((await day.differences(offer(rule)))[17, 3]) == {"redirected": -1, "fallback targeting": 1}
    rule = 'rules = [{ when = { device = ["mobile"] }, then = { reject = "no mobiles" } }]'
    assert await day.differences(offer(rule)) == {}
    pages = 'landing_pages = [{ id = 1, url = "https://x.example/", weight = 1 }]'
    assert await day.differences(offer(pages)) == {}
    capped = await day.differences(offer("caps = { daily_clicks = 3 }", "redirect_offer_id = 18"))
    assert told(capped[17, 2]) == {"redirected": -3}
    assert told(capped[18, 2]) == {"redirected capped": 3, "payout": "0.2", "revenue": "0.4"}
    assert told(capped[18, 3]) == {"redirected capped": 1, "payout": "0.1", "revenue": "0.2"}
    paid = await day.differences(offer('payout_type = "cpc"'))
    assert told(paid[17, 2])["payout"] == "4"  # five unique clicks instead of five conversions, of which one was a lead


async def test_a_replay_writes_nothing_and_cannot(day: Day) -> None:
    """The whole database is the same before and after, and the server would have refused."""
    before = await fingerprint(day.bench.conn)
    replayed = await day.ask(offer('duplicates = "update"', "caps = { daily_conversions = 1 }", payout='"1"'))
    assert any(one.difference.has_any() for one in replayed.compared)
    assert await fingerprint(day.bench.conn) == before
    conn = await day.bench.connect()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with open_snapshot(conn):
            await conn.execute("DELETE FROM conversions")


async def test_only_what_was_asked_for_is_shown_and_totals_are_its_sums(day: Day) -> None:
    """By offer and partner; each currency apart; as JSON and as CSV."""
    replayed = await day.ask(offer(payout='"6"'), offer_ids=[17], aff_ids=[3])
    assert [one.place[:2] for one in replayed.compared] == [(17, 3)]
    replayed = await day.ask(offer(payout='"6"'), offer_ids=[17])
    [total] = replayed.total
    assert total.difference.payout == sum(one.difference.payout for one in replayed.compared) == Decimal(4)
    data = json.loads(json.dumps(as_data(replayed), default=str))
    assert data["changes"] == ["~ offers[17].payout: 5.00 -> 6"]
    assert data["totals"][0]["difference"]["payout"] == "4.000000"
    rows = list(as_rows(replayed))
    assert ("17", "2", "USD", "conversions", "approved", "", "5", "5", "0") in {tuple(map(str, row)) for row in rows}
    conn = await day.bench.connect()
    with pytest.raises(UserError, match="nothing lies between"):
        await replay(conn, Asked(day.today, day.today - timedelta(days=1)), "", "")


async def test_how_many_are_erased_is_said(day: Day) -> None:
    """In words, as CSV and as JSON: changed rules change nothing about them."""
    clicks = [row[0].bytes for row in await day.bench.rows("SELECT click_id FROM clicks WHERE aff_id = 2")]
    await erase(day.bench.conn, Order([Target("click", one) for one in clicks], SECRET, "t"))
    replayed = await day.ask(offer(payout='"6.25"'))
    [one] = [one for one in replayed.compared if one.place[:2] == (17, 2)]
    assert (one.difference.has_any(), one.before.erased) == (False, 6)
    assert as_data(replayed)["totals"][0]["before"]["erased_conversions"] == 6
    assert (17, 2, "USD", "erased_conversions", "", "", 6, 6, 0) in list(as_rows(replayed))
    days = ("--from", str(day.today - timedelta(days=1)), "--to", str(day.today), "--database", day.bench.url)
    assert "6 conversions of erased people are left as they were" in await command("replay", *days)


async def test_the_command_prints_the_difference(day: Day, tmp_path: Path) -> None:
    """As tables, CSV and JSON; a wrong file or day is a line and nothing else."""
    file = tmp_path / "changed.toml"
    file.write_text(offer(payout='"6.25"'))
    days = ("--from", str(day.today - timedelta(days=1)), "--to", str(day.today), "--database", day.bench.url)
    printed = await command("replay", *days, "--catalog", str(file))
    assert "~ offers[17].payout: 5.00 -> 6.25" in printed
    assert "offer 17, partner 2 USD" in printed
    assert printed.endswith("nothing was written\n")
    assert "5.000000" in await command("replay", *days, "--catalog", str(file), "--csv")
    assert json.loads(await command("replay", *days, "--json"))["changes"] == []
