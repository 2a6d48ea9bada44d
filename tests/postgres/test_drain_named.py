"""Conversions that name no click of ours: external ids, contacts, promo codes, partners."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.postgres.drains import Bench, Scribe, Station, make_settings, now_ms
from tests.recount import differences

HOUR_MS = 3_600_000
WAITING = "SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL"
OFFERS = """
[[partners]]
id = 4
name = "Blocked"
status = "blocked"
[[offers]]
id = 18
advertiser_id = 1
name = "Codes"
url = "https://shop.example.com/"
payout = "5.00"
promo_codes = [{ code = "XMAS", aff_id = 3 }, { code = "Wins", aff_id = 3, wins = true }, { code = "BAD", aff_id = 4 }]
[[offers]]
id = 19
advertiser_id = 2
name = "Guarded"
url = "https://shop.example.com/"
payout = "5.00"
[[offers]]
id = 20
advertiser_id = 1
name = "Rebills"
url = "https://shop.example.com/"
payout = "5.00"
tracking = "partner_id"
goals = [{ id = 1, name = "rebill", payout = "2.00" }]
click_window = "1h"
min_seconds_to_convert = 60
[[offers]]
id = 21
advertiser_id = 2
name = "Guarded rebills"
url = "https://shop.example.com/"
tracking = "partner_id"
"""
CREDIT = "SELECT click_id, aff_id, status, reason, extras ->> 'touch' FROM conversions WHERE conversion_id = $1"


@pytest.fixture
async def scribe(bench: Bench) -> Scribe:
    """A worker whose catalog has offers of all kinds."""
    return bench.scribe(revision=await bench.apply(OFFERS))


def named(scribe: Scribe, **fields: Any) -> bytes:
    """A postback without a click's id."""
    return scribe.convert(b"", **{"transaction_id": "", **fields})


def external(scribe: Scribe, ad_id: str, **fields: Any) -> bytes:
    """A postback with an id that is not ours."""
    return named(scribe, transaction_id=ad_id, is_external=True, **fields)


async def credit(bench: Bench, conversion_id: bytes) -> tuple[Any, ...]:
    """Click id, partner, status, reason and kind of touch, once drained."""
    await bench.drain()
    assert await differences(bench.conn) == []
    rows = await bench.rows(CREDIT, UUID(bytes=conversion_id))
    click_id, *rest = rows[0] if rows else (None, 0, "", "", None)
    return (click_id.bytes if click_id else b"", *rest)


async def test_a_custom_id_finds_its_click(bench: Bench, scribe: Scribe) -> None:
    """In the same batch and later; the id as sent stays in the row, and counts once like any other."""
    clicked = scribe.click(params={"ad_id": "TUNE-1.x~_"})
    conversion = external(scribe, "TUNE-1.x~_")
    assert await credit(bench, conversion) == (clicked, 2, "approved", "", None)
    assert await credit(bench, external(scribe, "TUNE-1.x~_")) == (clicked, 2, "rejected", "duplicate", None)
    assert await credit(bench, scribe.convert(clicked)) == (clicked, 2, "rejected", "duplicate", None)
    assert await bench.rows("SELECT DISTINCT extras ->> 'ad_id' FROM clicks") == [("TUNE-1.x~_",)]


async def test_the_first_click_keeps_a_custom_id(bench: Bench, scribe: Scribe) -> None:
    """Fetches ahead and clicks that went nowhere do not count; what is no id is none."""
    params = {"ad_id": "A"}
    scribe.click(params=params, flags=["prefetch"])
    scribe.click(params=params, outcome="fallback")
    first = scribe.click(params=params)
    scribe.click(params=params)
    await bench.drain()
    scribe.click(params=params)
    scribe.click(params={"ad_id": "a b"})
    scribe.click(params={"ad_id": "x" * 65})
    await bench.drain()
    assert await bench.rows("SELECT transaction_id, click_id FROM external_ids") == [("A", UUID(bytes=first))]


async def test_a_custom_id_waits_until_all_live_journals_are_drained_through_the_receipt(
    bench: Bench, scribe: Scribe
) -> None:
    """Any of them may hold its click; a journal that is behind holds the verdict back."""
    other = bench.scribe(worker=1)
    conversion = external(scribe, "A")
    scribe.beat(now_ms() + 1000)
    assert await credit(bench, conversion) == (b"", 0, "", "", None)
    assert await bench.value(WAITING) == 1
    other.beat(now_ms() + 1000)
    assert await credit(bench, conversion) == (b"", 0, "rejected", "unknown_click", None)
    assert await bench.value("SELECT note FROM conversion_changes") == "the id is not ours, and no click carried it"


@pytest.mark.parametrize("was_decided", [False, True])
async def test_a_click_with_the_custom_id_that_comes_late_decides(
    bench: Bench, scribe: Scribe, was_decided: bool
) -> None:
    """While it waits, and also after it was called unknown; roll-ups follow."""
    other = bench.scribe(worker=1, revision=scribe.revision)
    conversion = external(scribe, "A", offer_id=17)
    scribe.beat(now_ms() + 1000)
    if was_decided:
        other.beat(now_ms() + 1000)
    await bench.drain()
    assert await bench.verdict(conversion) == (("rejected", "unknown_click") if was_decided else ("", ""))
    clicked = other.click(params={"ad_id": "A"})
    assert await credit(bench, conversion) == (clicked, 2, "approved", "", None)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await bench.rows("SELECT sum(conversions), sum(rejected) FROM stats_hourly") == [(1, 0)]


@pytest.mark.parametrize("was_decided", [False, True])
async def test_ids_brought_in_from_elsewhere_decide_what_waits_for_them(
    bench: Bench, scribe: Scribe, was_decided: bool
) -> None:
    """An import writes external_ids without any journal: the drain's chores find it, whenever it came."""
    conversion = external(scribe, "OLD-7")
    clicked = scribe.click()
    if was_decided:
        scribe.beat(now_ms() + 1000)
    station = bench.station()
    await bench.drain(station)
    await bench.conn.execute("UPDATE conversions_waiting SET decided_at = decided_at - interval '30 days'")
    await bench.conn.execute("INSERT INTO external_ids VALUES ('OLD-7', $1)", UUID(bytes=clicked))
    await station.drain._do_chores(await bench.connect())
    assert await credit(bench, conversion) == (clicked, 2, "approved", "", None)


async def test_an_external_id_whose_click_is_gone_is_left_in_peace(bench: Bench, scribe: Scribe) -> None:
    """A partition dropped by retention: no chore decides the same again and again."""
    conversion = external(scribe, "GONE")
    scribe.beat(now_ms() + 1000)
    await bench.conn.execute("INSERT INTO external_ids VALUES ('GONE', $1)", UUID(bytes=scribe.ids.mint(now_ms())))
    station = bench.station()
    await bench.drain(station)
    for _ in range(2):
        await station.drain._do_chores(await bench.connect())
    assert await bench.verdict(conversion) == ("rejected", "unknown_click")
    assert await bench.value("SELECT count(*) FROM conversion_changes") == 1


async def test_a_contact_stands_for_its_latest_click(bench: Bench, scribe: Scribe) -> None:
    """Of the offer that is named, else of any."""
    of_17 = scribe.click(contact_id="c-1", ms=now_ms() - 2 * HOUR_MS)
    of_18 = scribe.click(contact_id="c-1", offer_id=18, aff_id=3, ms=now_ms() - HOUR_MS)
    scribe.click(contact_id="c-2")
    any_offer = named(scribe, contact_id="c-1")
    assert await credit(bench, any_offer) == (of_18, 3, "approved", "", None)
    assert await credit(bench, named(scribe, contact_id="c-1", offer_id=17)) == (of_17, 2, "approved", "", None)
    assert await bench.rows("SELECT DISTINCT contact_id, transaction_id FROM conversions") == [("c-1", "")]


async def test_a_contact_stands_for_the_click_of_its_earlier_conversion(bench: Bench, scribe: Scribe) -> None:
    """A lead names click and contact, the sale only the contact; both in one batch too."""
    clicked = scribe.click()
    scribe.convert(clicked, goal_id=1, contact_id="c-9")
    sale = named(scribe, contact_id="c-9")
    await bench.drain()
    assert await bench.value(WAITING) == 1
    scribe.beat(now_ms() + 1000)
    assert await credit(bench, sale) == (clicked, 2, "approved", "", None)


async def test_a_contact_that_nobody_knows_is_an_unknown_click_in_the_end(bench: Bench, scribe: Scribe) -> None:
    """Once every live journal is drained through the receipt."""
    sale = named(scribe, contact_id="nobody")
    scribe.beat(now_ms() + 1000)
    assert await credit(bench, sale) == (b"", 0, "rejected", "unknown_click", None)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0


async def test_a_token_says_whose_contact_is_meant(bench: Bench, scribe: Scribe) -> None:
    """A contact may buy of several advertisers: none claims a sale on another's click."""
    guarded = scribe.click(contact_id="c-1", offer_id=19, ms=now_ms() - 2 * HOUR_MS)
    plain = scribe.click(contact_id="c-1", ms=now_ms() - HOUR_MS)
    of_guarded = named(scribe, contact_id="c-1", security_token="s3cret")
    assert await credit(bench, of_guarded) == (guarded, 2, "approved", "", None)
    assert await credit(bench, named(scribe, contact_id="c-1")) == (plain, 2, "approved", "", None)
    only = scribe.click(contact_id="c-3", offer_id=19)
    refused = named(scribe, contact_id="c-3", security_token="wrong")
    assert await credit(bench, refused) == (only, 2, "rejected", "bad_token", None)


async def test_a_promo_code_credits_its_partner_without_a_click(bench: Bench, scribe: Scribe) -> None:
    """Whatever its case; each event id once; a blocked partner is refused as ever."""
    for code in ("XMAS", "xmas"):
        sale = named(scribe, offer_id=18, promo_code=code, adv_unique1=code)
        assert await credit(bench, sale) == (b"", 3, "approved", "", "promo_code")
    again = named(scribe, offer_id=18, promo_code="XMAS", adv_unique1="xmas")
    assert await credit(bench, again) == (b"", 3, "rejected", "duplicate", "promo_code")
    blocked = named(scribe, offer_id=18, promo_code="BAD")
    assert await credit(bench, blocked) == (b"", 4, "rejected", "partner_blocked", "promo_code")
    assert await bench.rows("SELECT aff_id, sum(payout) FROM stats_hourly WHERE conversions > 0 GROUP BY 1") == [
        (3, 10)
    ]


async def test_a_promo_code_stands_in_for_a_click_that_never_came(bench: Bench, scribe: Scribe) -> None:
    """Only after the wait; a forged id and a browser's pixel get nothing."""
    other = bench.scribe(worker=1)
    lost = other.ids.mint(now_ms())
    sale = scribe.convert(lost, offer_id=18, promo_code="XMAS")
    await bench.drain()
    assert await bench.value(WAITING) == 1
    other.beat(now_ms() + 1000)
    assert await credit(bench, sale) == (b"", 3, "approved", "", "promo_code")
    forged = named(scribe, transaction_id="forged", offer_id=18, promo_code="XMAS")
    assert await credit(bench, forged) == (b"", 0, "rejected", "forged_id", None)
    pixel = named(scribe, via="pixel", offer_id=18, promo_code="XMAS")
    assert await credit(bench, pixel) == (b"", 0, "rejected", "unknown_click", None)


@pytest.mark.parametrize(("code", "aff_id"), [("XMAS", 2), ("wins", 3), ("NONE", 2)])
async def test_a_click_beats_a_promo_code_unless_the_catalog_says_otherwise(
    bench: Bench, scribe: Scribe, code: str, aff_id: int
) -> None:
    """With `wins` its partner is paid; the conversion stays the click's, and the roll-up is the partner's."""
    clicked = scribe.click(offer_id=18)
    assert await credit(bench, scribe.convert(clicked, promo_code=code)) == (clicked, aff_id, "approved", "", None)
    assert await bench.rows("SELECT aff_id FROM stats_hourly WHERE conversions = 1") == [(aff_id,)]


async def test_a_rebill_is_credited_to_the_partner_that_it_names(bench: Bench, scribe: Scribe) -> None:
    """No window, no haste; without an event id every one counts, with one each counts once."""
    for _ in range(2):
        rebill = named(scribe, offer_id=20, goal_id=1, aff_id="3")
        assert await credit(bench, rebill) == (b"", 3, "approved", "", "partner_id")
    first, again, other = (named(scribe, offer_id=20, aff_id="3", adv_unique1=one) for one in ("a", "a", "b"))
    assert await credit(bench, first) == (b"", 3, "approved", "", "partner_id")
    assert await bench.verdict(again) == ("rejected", "duplicate")
    assert await bench.verdict(other) == ("approved", "")
    assert await bench.rows("SELECT sum(conversions), sum(payout) FROM stats_hourly") == [(4, 14)]
    note = await bench.value("SELECT note FROM conversion_changes ORDER BY change_id LIMIT 1")
    assert note == "by postback, credited to the partner that it named"


@pytest.mark.parametrize(
    ("aff_id", "reason"), [("4", "partner_blocked"), ("99", "unknown_partner"), ("x", "unknown_click")]
)
async def test_a_rebills_partner_is_checked(bench: Bench, scribe: Scribe, aff_id: str, reason: str) -> None:
    """As a click's is."""
    assert (await credit(bench, named(scribe, offer_id=20, aff_id=aff_id)))[2:4] == ("rejected", reason)


async def test_what_waits_for_a_contact_or_an_id_survives_a_drains_restart(bench: Bench, scribe: Scribe) -> None:
    """Another process decides it; a worker of another node speaks for the click as well."""
    stranger = Scribe(bench.data_dir.with_name(bench.data_dir.name + "-7"), node=7, revision=scribe.revision)
    conversions = [external(scribe, "A"), named(scribe, contact_id="c-1")]
    elsewhere = Station(make_settings(stranger.writer.directory.parents[1], bench.url, node_id=7))
    await bench.drain(elsewhere)
    scribe.beat(now_ms() + 1000)
    await bench.drain()
    assert await bench.value(WAITING) == 2
    clicked = stranger.click(params={"ad_id": "A"}, contact_id="c-1", ms=now_ms() - 1000)
    stranger.beat(now_ms() + 1000)
    await bench.drain(elsewhere)
    await bench.drain()
    assert sorted([(await credit(bench, one))[:3] for one in conversions]) == [
        (clicked, 2, "approved"),
        (clicked, 2, "rejected"),
    ]
    stranger.close()


async def test_a_contact_too_long_for_an_index_is_stored_and_found_by_nobody(bench: Bench, scribe: Scribe) -> None:
    """A click is never lost for what its sender wrote into it."""
    contact = "".join(map(str, range(2000)))
    clicked = scribe.click(contact_id=contact)
    scribe.convert(clicked)
    sale = named(scribe, contact_id=contact)
    scribe.beat(now_ms() + 1000)
    assert await credit(bench, sale) == (b"", 0, "rejected", "unknown_click", None)
    assert await bench.ids() == [clicked]
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def test_a_rebill_needs_its_advertisers_token_and_address(bench: Bench, scribe: Scribe) -> None:
    """Anybody may name a partner."""
    for fields, verdict in (
        ({}, ("rejected", "bad_token")),
        ({"security_token": "s3cret", "ip": "192.0.2.1"}, ("rejected", "ip_not_allowed")),
        ({"security_token": "s3cret"}, ("approved", "")),
    ):
        assert (await credit(bench, named(scribe, offer_id=21, aff_id="2", **fields)))[2:4] == verdict


async def test_two_drains_with_the_same_custom_ids_agree_and_do_not_block_each_other(bench: Bench) -> None:
    """In opposite orders, with conversions of them: one click gets each id, and each id converts once."""
    ad_ids = [f"id-{number}" for number in range(150)]
    scribes = [bench.scribe(worker=worker) for worker in (0, 1)]
    for scribe, order in zip(scribes, (ad_ids, ad_ids[::-1]), strict=True):
        for ad_id in order:
            scribe.click(params={"ad_id": ad_id})
        for ad_id in order:
            external(scribe, ad_id)
        scribe.beat(now_ms() + 1000)
    stations = [bench.station(slot=slot, drains=2, batch_rows=40) for slot in (0, 1)]
    conns = [await bench.connect() for _ in stations]
    await asyncio.gather(*map(Station.turn, stations, conns))
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM external_ids") == len(ad_ids)
    assert await bench.rows("SELECT status, reason, count(*) FROM conversions GROUP BY 1, 2 ORDER BY 1") == [
        ("approved", "", 150),
        ("rejected", "duplicate", 150),
    ]
    assert await differences(bench.conn) == []


async def test_a_journal_of_nobody_ends_no_wait_for_the_others(bench: Bench, scribe: Scribe) -> None:
    """No copy of its header verifies, so that nobody knows whose it is: an id of another network waits for all that live."""
    behind, nobodys = bench.scribe(worker=1), bench.scribe(worker=2)
    conversion = external(scribe, "T-1")
    for path in (nobodys.writer.directory / "lock", nobodys.writer.directory / "00000001.log"):
        with path.open("r+b") as file:
            file.write(b"garbage")
    for one in (scribe, nobodys):
        one.beat(now_ms() + HOUR_MS)
    await bench.drain()
    assert await bench.value("SELECT count(*) FROM journal_positions WHERE node_id = -1 AND watermark_ms > 0") == 1
    assert await bench.value(WAITING) == 1
    behind.click(params={"ad_id": "T-1"})
    await bench.drain()
    assert await bench.verdict(conversion) == ("approved", "")
