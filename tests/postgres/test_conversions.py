"""Conversions through the whole drain: row, reason, status code, change, roll-up; and what makes each count once."""

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from edge.tracking.status_codes import REJECTIONS
from tests.postgres.drains import CATALOG, Bench, Scribe, Station, now_ms
from tests.recount import differences

DAY_MS = 86_400_000


def offer(number: int, advertiser: int = 1, text: str = 'payout = "5.00"\nrevenue = "7.50"') -> str:
    """An offer in TOML."""
    return f'[[offers]]\nid = {number}\nadvertiser_id = {advertiser}\nname = "o"\nurl = "https://x.example/"\n{text}\n'


SHARES = 'payout_type = "cpa_percentage"\npayout_percent = "8"\nrevenue_type = "cpa_both"\nrevenue = "1"\nrevenue_percent = "12.5"'
OFFERS = "".join(
    [
        '[[partners]]\nid = 4\nname = "Blocked"\nstatus = "blocked"\n',
        '[[advertisers]]\nid = 3\nname = "Signing"\nsigning_secret = "s3cret"\n',
        offer(18, 2),
        offer(19, 1, 'status = "expired"'),
        offer(20, 1, 'payout = "5"\nrevenue = "7.5"\napproval = "manual"'),
        offer(21, 1, f'{SHARES}\ncurrency = "EUR"'),
        offer(22, 1, "pixels = false"),
        offer(23, 1, "min_seconds_to_convert = 3600"),
        offer(24, 1, 'status = "paused"\npayout = "2"\nrevenue = "3"'),
        offer(25, 1, "expires_at = 2020-01-01T00:00:00Z"),
        offer(26, 1, 'payout = "5"\nadvertiser_sets_amounts = true'),
        offer(27, 3),
    ]
)


class Case(NamedTuple):
    """A click, a conversion of it, and what becomes of that."""

    click: dict[str, Any]
    sent: dict[str, Any]
    status: str
    reason: str
    code: int
    payout: str = "0"
    revenue: str = "0"


CASES = {
    "flat": Case({}, {}, "approved", "", 43, "5", "7.5"),
    "pixel": Case({}, {"via": "pixel"}, "approved", "", 41, "5", "7.5"),
    "goal": Case({}, {"goal_id": 1}, "approved", "", 43, "1", "1.5"),
    "goal by name": Case({}, {"goal_name": "lead"}, "approved", "", 43, "1", "1.5"),
    "override": Case({"aff_id": 3}, {}, "approved", "", 43, "6", "7.5"),
    "paused": Case({"offer_id": 24}, {}, "approved", "", 43, "2", "3"),
    "guarded": Case({"offer_id": 18}, {"security_token": "s3cret"}, "approved", "", 43, "5", "7.5"),
    "percent": Case({"offer_id": 21}, {"amount": "200"}, "approved", "", 43, "16", "26"),
    "foreign, flat": Case({}, {"amount": "9", "currency": "EUR"}, "approved", "", 43, "5", "7.5"),
    "set by the advertiser": Case({"offer_id": 26}, {"payout": "0.1", "revenue": "9"}, "approved", "", 43, "0.1", "9"),
    "manual": Case({"offer_id": 20}, {}, "pending", "", 31, "5", "7.5"),
    "forged": Case({}, {"transaction_id": "deadbeef"}, "rejected", "forged_id", 201),
    "never clicked": Case({}, {}, "rejected", "unknown_click", 202),
    "no offer": Case({"offer_id": 999}, {}, "rejected", "unknown_offer", 203),
    "pixel refused": Case({"offer_id": 22}, {"via": "pixel"}, "rejected", "pixel_refused", 15),
    "no token": Case({"offer_id": 18}, {}, "rejected", "bad_token", 19),
    "wrong token": Case({"offer_id": 18}, {"security_token": "S3cret"}, "rejected", "bad_token", 19),
    "address": Case(
        {"offer_id": 18}, {"security_token": "s3cret", "ip": "192.0.2.1"}, "rejected", "ip_not_allowed", 14
    ),
    "unsigned": Case({"offer_id": 27}, {}, "rejected", "bad_signature", 220),
    "expired": Case({"offer_id": 19}, {}, "rejected", "offer_inactive", 204),
    "expired by date": Case({"offer_id": 25}, {}, "rejected", "offer_inactive", 204),
    "no partner": Case({"aff_id": 99}, {}, "rejected", "unknown_partner", 205),
    "blocked": Case({"aff_id": 4}, {}, "rejected", "partner_blocked", 206),
    "late": Case({"ms": now_ms() - 31 * DAY_MS}, {}, "rejected", "outside_window", 207),
    "hasty": Case({"offer_id": 23}, {}, "rejected", "too_soon", 208),
    "no goal": Case({}, {"goal_id": 9}, "rejected", "unknown_goal", 209),
    "no amount": Case({"offer_id": 21}, {"amount": "1e3"}, "rejected", "invalid_amount", 210),
    "currency": Case({"offer_id": 21}, {"amount": "10", "currency": "USD"}, "rejected", "currency_mismatch", 211),
    "its own word": Case({}, {"status": "rejected"}, "rejected", "advertiser", 212),
    "not yet": Case({}, {"status": "pending"}, "pending", "", 31, "5", "7.5"),
    "a word unknown": Case({}, {"status": "maybe"}, "approved", "", 43, "5", "7.5"),
    "a browser's word": Case({}, {"via": "pixel", "status": "rejected"}, "approved", "", 41, "5", "7.5"),
}


def write_case(old: Scribe, scribe: Scribe, name: str, case: Case) -> bytes:
    """The click, unless the case is about its absence, and the conversion; its id."""
    if name == "forged":
        return scribe.convert(b"", **case.sent)
    if name == "never clicked":
        return scribe.convert(scribe.ids.mint(0), **case.sent)
    click_id = (old if "ms" in case.click else scribe).click(**case.click)
    return scribe.convert(click_id, **case.sent)


async def test_every_reason_is_stored_with_its_code_money_and_change(bench: Bench) -> None:
    """One conversion of each kind, all in one batch: no verdict touches another, and the roll-ups equal the rows."""
    await bench.apply(CATALOG + OFFERS)
    old, scribe = bench.scribe(worker=1, revision=2), bench.scribe(revision=2)
    ids = {name: write_case(old, scribe, name, case) for name, case in CASES.items()}
    await bench.drain(conversion_wait_s=0)
    rows = {
        row["conversion_id"].bytes: row
        for row in await bench.conn.fetch(
            "SELECT conversions.*, note, kind, status_after, changes.reason AS why FROM conversions"
            " JOIN conversion_changes AS changes USING (conversion_id)"
        )
    }
    assert len(rows) == len(CASES)
    for name, case in CASES.items():
        row = rows[ids[name]]
        stored = (row["status"], row["reason"], row["status_code"], row["payout"], row["revenue"])
        assert stored == (*case[2:5], Decimal(case.payout), Decimal(case.revenue)), name
        assert (row["kind"], row["status_after"], row["why"]) == ("decided", case.status, case.reason), name
        assert row["note"], name
    assert {case.reason for case in CASES.values()} | {"", "duplicate", "replayed", "capped"} == {"", *REJECTIONS}
    assert await differences(bench.conn) == []
    sums = await bench.rows("SELECT sum(conversions), sum(pending), sum(rejected), sum(payout) FROM stats_hourly")
    counts = Counter(case.status for case in CASES.values())
    paid = sum(Decimal(case.payout) for case in CASES.values() if case.status == "approved")
    assert sums == [(counts["approved"], counts["pending"], counts["rejected"], paid)]


async def test_a_conversion_carries_its_clicks_keys(bench: Bench) -> None:
    """Offer, partner, landing page, creative, device and time of the click; the buyer's address; no token in extras."""
    scribe = bench.scribe()
    click_id = scribe.click(landing_page_id=4, creative_id=5)
    sent: dict[str, Any] = {"adv_sub1": "order 7", "color": "red", "security_token": "x", "promo_code": "XMAS"}
    scribe.convert(click_id, ip="192.0.2.9", **sent)
    await bench.drain()
    (row,) = await bench.conn.fetch("SELECT conversions.*, clicked_at FROM conversions JOIN clicks USING (click_id)")
    assert (row["offer_id"], row["aff_id"], row["advertiser_id"]) == (17, 2, 1)
    assert (row["landing_page_id"], row["creative_id"], row["device_type"]) == (4, 5, "desktop")
    assert row["touched_at"] == row["clicked_at"]
    assert (str(row["ip"]), row["adv_sub1"], row["promo_code"]) == ("192.0.2.9", "order 7", "XMAS")
    assert row["extras"] == {"color": "red"}


async def test_an_amount_in_another_currency_is_kept_beside_not_added(embedded_bench: Bench) -> None:
    """Reports never add across currencies; what was sent is in extras."""
    scribe = embedded_bench.scribe()
    scribe.convert(scribe.click(), amount="12.50", currency="eur")
    await embedded_bench.drain()
    assert await embedded_bench.rows("SELECT amount, currency, extras FROM conversions") == [
        (0, "USD", {"currency": "eur", "amount_sent": "12.50 eur"})
    ]


@pytest.mark.parametrize("batch_rows", [1000, 2])
async def test_of_many_conversions_of_a_click_one_is_approved(bench: Bench, batch_rows: int) -> None:
    """Within one batch and across batches, the first; a goal counts for itself; a refused one before blocks nothing."""
    scribe = bench.scribe()
    click_id = scribe.click()
    refused = scribe.convert(click_id, amount="x")
    first, goal = scribe.convert(click_id), scribe.convert(click_id, goal_id=1)
    others = [scribe.convert(click_id) for _ in range(20)]
    await bench.drain(batch_rows=batch_rows)
    assert await bench.verdict(refused) == ("rejected", "invalid_amount")
    assert await bench.verdict(first) == await bench.verdict(goal) == ("approved", "")
    assert {await bench.verdict(one) for one in others} == {("rejected", "duplicate")}
    assert await bench.rows("SELECT DISTINCT status_code FROM conversions WHERE reason = 'duplicate'") == [(12,)]
    assert await differences(bench.conn) == []


async def test_a_unique_id_counts_once_across_clicks(bench: Bench) -> None:
    """`conversion_unique_id`: another click with the same is a duplicate, the same click with another is not."""
    scribe = bench.scribe()
    click_id, other = scribe.click(), scribe.click()
    first = scribe.convert(click_id, conversion_unique_id="o-1")
    second = scribe.convert(other, conversion_unique_id="o-1")
    third = scribe.convert(click_id, conversion_unique_id="o-2")
    await bench.drain(batch_rows=2)
    assert await bench.verdict(first) == await bench.verdict(third) == ("approved", "")
    assert await bench.verdict(second) == ("rejected", "duplicate")
    assert await bench.value("SELECT status_code FROM conversions WHERE reason = 'duplicate'") == 18


async def test_two_drains_at_once_approve_one(bench: Bench) -> None:
    """The same conversions in two workers' journals, stored by two drains side by side: one of each click counts."""
    clicks = bench.scribe(worker=2)
    click_ids = [clicks.click() for _ in range(20)]
    scribes = [bench.scribe(worker=0), bench.scribe(worker=1)]
    for scribe, order in zip(scribes, (click_ids, click_ids[::-1]), strict=True):
        for _ in range(5):
            for click_id in order:
                scribe.convert(click_id)
    await bench.drain(slot=2, drains=3)
    conns = [await bench.connect() for _ in scribes]
    stations = [bench.station(slot=slot, drains=3, batch_rows=25) for slot in (0, 1)]
    await asyncio.gather(*map(Station.turn, stations, conns))
    assert await bench.value("SELECT count(*) FROM conversions") == 200
    assert await bench.value("SELECT count(DISTINCT click_id) FROM conversions WHERE status = 'approved'") == 20
    assert await bench.value("SELECT count(*) FROM conversions WHERE status = 'approved'") == 20
    assert await differences(bench.conn) == []


async def test_a_session_in_the_event_needs_no_stored_click(bench: Bench) -> None:
    """What the worker still knew decides, also where the click itself was dropped."""
    scribe = bench.scribe()
    session = scribe.session(aff_id=3)
    conversion = scribe.convert(session.click_id, session=scribe.sessions[session.click_id])
    await bench.drain()
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.value("SELECT payout FROM conversions") == 6


async def test_a_click_stored_long_ago_is_looked_up(bench: Bench) -> None:
    """A drain that has only just started finds it in Postgres: the same verdict as from memory."""
    scribe = bench.scribe()
    click_id = scribe.click(aff_id=3, landing_page_id=9)
    await bench.drain()
    conversion = scribe.convert(click_id)
    await bench.drain()
    assert await bench.verdict(conversion) == ("approved", "")
    assert await bench.rows("SELECT aff_id, landing_page_id, device_type, payout FROM conversions") == [
        (3, 9, "desktop", 6)
    ]
    assert await differences(bench.conn) == []
