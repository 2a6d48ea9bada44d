"""Later conversions that change earlier ones: update, increment, the advertiser's status; in one batch, in many, at once."""

import asyncio
from typing import Any

import pytest

from storage.postgres.changes import Held
from tests.postgres.changing import (
    BATCHES,
    EVENTS,
    GUARDED,
    INCREMENT,
    MANUAL,
    NEW,
    OFFERS,
    REPEATED,
    SET,
    SHARES,
    SHORT,
    UPDATE,
    causes,
    shown,
)
from tests.postgres.drains import Bench, Scribe, Station


@pytest.fixture
async def scribe(bench: Bench) -> Scribe:
    """A worker's journal on the catalog above."""
    return bench.scribe(revision=await bench.apply(OFFERS))


@BATCHES
async def test_update_takes_the_last_amount(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """The first keeps its id and gets the amounts of the last; each change names the conversion that caused it."""
    click_id = scribe.click(offer_id=UPDATE)
    first, second, third = (scribe.convert(click_id, amount=amount) for amount in ("10", "30", "20"))
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, second, third) == [("approved", "", 20, 3, 4), None, None]
    assert await causes(bench) == [
        ("adjusted", second, "postback", 20, 2, 4),
        ("adjusted", third, "postback", -10, -1, -2),
    ]
    assert await bench.rows("SELECT sum(conversions), sum(amount), sum(payout), sum(revenue) FROM stats_hourly") == [
        (1, 20, 3, 4)
    ]


@BATCHES
async def test_increment_adds_up(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """Payout and revenue are those of the sum: the flat part counts once. Goals are apart. What was sent is kept."""
    click_id = scribe.click(offer_id=INCREMENT)
    first = scribe.convert(click_id, amount="10")
    others = [scribe.convert(click_id, amount="0.5", adv_sub1=f"item {number}") for number in range(4)]
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, *others) == [("approved", "", 12, 2.2, 2.4), None, None, None, None]
    kept = await bench.rows("SELECT cause_params FROM conversion_changes WHERE cause_id IS NOT NULL ORDER BY change_id")
    assert kept[2] == ({"amount": "0.5", "adv_sub1": "item 2"},)


@BATCHES
async def test_amounts_that_the_advertiser_sets_are_added_or_replaced(
    bench: Bench, scribe: Scribe, batch_rows: int
) -> None:
    """Under `advertiser_sets_amounts` payouts add up as amounts do; elsewhere a payout that is sent means nothing."""
    click_id, other = scribe.click(offer_id=SET), scribe.click(offer_id=UPDATE)
    first, plain = scribe.convert(click_id, payout="2", revenue="3"), scribe.convert(other, amount="10")
    scribe.convert(click_id, payout="0.5")
    scribe.convert(other, payout="99", revenue="99")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, plain) == [("approved", "", 0, 2.5, 3), ("approved", "", 10, 2, 2)]


@BATCHES
async def test_a_pending_holder_is_updated_and_stays_pending(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """Its money is in no roll-up before it is approved, and then it is the last one."""
    click_id = scribe.click(offer_id=INCREMENT)
    first = scribe.convert(click_id, amount="10", status="pending")
    second = scribe.convert(click_id, amount="5", status="pending")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, second) == [("pending", "", 15, 2.5, 3), None]
    third = scribe.convert(click_id, amount="5", status="approved")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, third) == [("approved", "", 20, 3, 4), None]
    assert (await causes(bench))[1:] == [("approved", third, "postback", 20, 3, 4)]


@BATCHES
async def test_what_was_taken_back_is_not_updated(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """A later conversion of a reversed one is a duplicate with a row of its own: nothing is lost, nobody is paid."""
    click_id = scribe.click(offer_id=UPDATE)
    first = scribe.convert(click_id, amount="10")
    back = scribe.convert(click_id, status="reversed")
    late = scribe.convert(click_id, amount="40")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, back, late) == [
        ("reversed", "advertiser", 10, 2, 2), None, ("rejected", "duplicate", 40, 0, 0)
    ]  # fmt: skip
    assert await bench.rows("SELECT sum(conversions), sum(rejected), sum(payout) FROM stats_hourly") == [(0, 1, 0)]


async def test_an_amount_that_does_not_fit_changes_nothing(bench: Bench, scribe: Scribe) -> None:
    """Sums of 10^12 and more are a stored duplicate, not a batch that fails."""
    click_id = scribe.click(offer_id=INCREMENT)
    first = scribe.convert(click_id, amount="999999999999")
    second = scribe.convert(click_id, amount="999999999999")
    wrong = scribe.convert(click_id, amount="1e3")
    await bench.drain()
    assert await shown(bench, first, second, wrong) == [
        ("approved", "", 999999999999, 100000000000.9, 199999999999.8),
        ("rejected", "duplicate", 999999999999, 0, 0),
        ("rejected", "invalid_amount", 0, 0, 0),
    ]


@BATCHES
async def test_a_lead_becomes_a_sale_and_is_taken_back(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """pending, approved with its amount, reversed, approved again: one row, told by four postbacks."""
    click_id = scribe.click(offer_id=SHORT)
    lead = scribe.convert(click_id, status="pending")
    told = [scribe.convert(click_id, status=status, amount="9") for status in ("approved", "reversed", "approved")]
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, lead, *told) == [("approved", "", 9, 5, 7), None, None, None]
    assert [row[:2] for row in await causes(bench)] == [
        ("approved", told[0]), ("reversed", told[1]), ("approved", told[2])
    ]  # fmt: skip
    assert await bench.value("SELECT status_code FROM conversions") == 215


@BATCHES
async def test_the_same_word_twice_changes_nothing_more(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """A reversal that is repeated is stored as refused; so is one that has nothing to take back."""
    click_id, other = scribe.click(), scribe.click()
    first = scribe.convert(click_id)
    back, again = scribe.convert(click_id, status="reversed"), scribe.convert(click_id, status="reversed")
    nothing = scribe.convert(other, status="rejected")
    good = scribe.convert(other)
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, back, again, nothing, good) == [
        ("reversed", "advertiser", 0, 5, 7.5),
        None,
        ("rejected", "advertiser", 0, 0, 0),
        ("rejected", "advertiser", 0, 0, 0),
        ("approved", "", 0, 5, 7.5),
    ]
    assert await bench.value("SELECT max(status_code) FROM conversions WHERE status = 'rejected'") == 212


@BATCHES
async def test_a_reversal_finds_what_it_names(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """By unique id, by event id, else the latest of the click and goal; an id that nobody has means nothing."""
    new, events = scribe.click(offer_id=NEW), scribe.click(offer_id=EVENTS)
    first, second = (scribe.convert(new, adv_unique1=event) for event in ("a", "b"))
    third, fourth = (scribe.convert(events, adv_unique1=event) for event in ("a", "b"))
    fifth = scribe.convert(new, conversion_unique_id="order 5")
    scribe.convert(new, status="reversed", adv_unique1="a")
    scribe.convert(events, status="reversed", adv_unique1="a")
    scribe.convert(events, status="rejected")
    scribe.convert(new, status="rejected", conversion_unique_id="order 5")
    nobodys: list[dict[str, Any]] = [{"adv_unique1": "z"}, {"conversion_unique_id": "order 6"}]
    for unknown in nobodys:
        scribe.convert(new, status="reversed", **unknown)
        scribe.convert(events, status="reversed", **unknown)
    await bench.drain(batch_rows=batch_rows)
    assert [row[0] for row in await shown(bench, first, second, third, fourth, fifth) if row] == [
        "reversed", "approved", "reversed", "rejected", "rejected"
    ]  # fmt: skip
    assert await bench.value("SELECT count(*) FROM conversions WHERE status_code = 212") == 4


@BATCHES
async def test_a_rebill_is_new_whatever_became_of_the_last(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """Under `new` an approval approves a pending one; else it is a conversion of its own, also after a reversal."""
    click_id = scribe.click(offer_id=NEW)
    lead = scribe.convert(click_id, status="pending")
    sale = scribe.convert(click_id, status="approved", amount="10")
    rebill = scribe.convert(click_id, status="approved", amount="20")
    scribe.convert(click_id, status="reversed")
    third = scribe.convert(click_id, status="approved", amount="30")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, lead, sale, rebill, third) == [
        ("approved", "", 10, 2, 2), None, ("reversed", "advertiser", 20, 3, 4), ("approved", "", 30, 4, 6)
    ]  # fmt: skip


@BATCHES
async def test_who_may_not_say_so_changes_nothing(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """A wrong token, a wrong address, a browser, another advertiser's order, an unknown word; manual stays manual."""
    guarded, manual = scribe.click(offer_id=GUARDED), scribe.click(offer_id=MANUAL)
    first = scribe.convert(guarded, security_token="s3cret", conversion_unique_id="o")
    scribe.convert(guarded, security_token="wrong", status="reversed", conversion_unique_id="o")
    scribe.convert(guarded, security_token="s3cret", ip="192.0.2.1", status="reversed", conversion_unique_id="o")
    scribe.convert(guarded, via="pixel", status="reversed", conversion_unique_id="o")
    scribe.convert(guarded, security_token="s3cret", status="cancelled", conversion_unique_id="o")
    scribe.convert(scribe.click(), status="reversed", conversion_unique_id="o")
    pending = scribe.convert(manual, status="approved")
    scribe.convert(manual, status="approved")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, pending) == [("approved", "", 0, 5, 7), ("pending", "", 0, 5, 7)]
    assert await causes(bench) == []
    scribe.convert(manual, status="rejected")
    scribe.convert(guarded, security_token="s3cret", status="reversed", conversion_unique_id="o")
    await bench.drain(batch_rows=batch_rows)
    assert [row[0] for row in await shown(bench, first, pending) if row] == ["reversed", "rejected"]


async def test_a_refund_comes_after_the_window(bench: Bench, scribe: Scribe) -> None:
    """What refuses a new conversion does not refuse the advertiser's word on an earlier one; nor does a bad amount."""
    click_id = scribe.click(offer_id=SHORT)
    sale = scribe.convert(click_id)
    await bench.drain()
    late = scribe.convert(click_id, ms=scribe_later(click_id), status="reversed", amount="-5")
    lone = scribe.convert(scribe.click(offer_id=SHORT), ms=scribe_later(click_id), status="reversed")
    await bench.drain()
    assert await shown(bench, sale, late, lone) == [
        ("reversed", "advertiser", 0, 5, 7), None, ("rejected", "outside_window", 0, 0, 0)
    ]  # fmt: skip


def scribe_later(click_id: bytes) -> int:
    """A millisecond two hours after the click."""
    return int.from_bytes(click_id[:6], "big") + 7_200_000


@BATCHES
async def test_new_repeated_marks_all_but_the_first(bench: Bench, scribe: Scribe, batch_rows: int) -> None:
    """Each is paid; the mark is ours, whatever was sent. Another click begins anew."""
    click_id = scribe.click(offer_id=REPEATED)
    ids = [scribe.convert(click_id, repeated="yes") for _ in range(3)]
    ids.append(scribe.convert(scribe.click(offer_id=REPEATED)))
    await bench.drain(batch_rows=batch_rows)
    assert [row[:2] for row in await shown(bench, *ids) if row] == [("approved", "")] * 4
    marks = await bench.rows("SELECT extras ->> 'repeated' FROM conversions ORDER BY received_at, conversion_id")
    assert marks == [(None,), ("1",), ("1",), (None,)]


async def test_a_late_click_turns_an_unknown_one_into_a_change(bench: Bench) -> None:
    """A conversion refused for want of its click, when that comes, changes the earlier one; its row says duplicate."""
    revision = await bench.apply(OFFERS)
    late, scribe = bench.scribe(worker=1, revision=revision), bench.scribe(revision=revision)
    session = late.session(offer_id=INCREMENT)
    known = scribe.convert(session.click_id, session=late.sessions[session.click_id], amount="10")
    unknown = scribe.convert(session.click_id, amount="5")
    await bench.drain(slot=0, drains=2, conversion_wait_s=0, batch_rows=1)
    assert (await shown(bench, unknown))[0] == ("rejected", "unknown_click", 0, 0, 0)
    late.click(session)
    await bench.drain(slot=1, drains=2)
    assert await shown(bench, known, unknown) == [("approved", "", 15, 2.5, 3), ("rejected", "duplicate", 5, 0, 0)]
    assert [row[:2] for row in await causes(bench)] == [("adjusted", unknown)]


async def test_a_batch_that_fails_changes_nothing_and_its_halves_each_once(bench: Bench, scribe: Scribe) -> None:
    """Rolled back and bisected around a record that Postgres refuses, the sum is that of the good ones."""
    click_id = scribe.click(offer_id=INCREMENT)
    first = scribe.convert(click_id, amount="1")
    for number in range(12):
        scribe.convert(click_id, amount="1")
        if number % 5 == 2:
            scribe.convert(scribe.click(offer_id=INCREMENT), amount="1", adv_sub1="\0")
            scribe.convert(click_id, amount="1", adv_sub1="\0")
    await bench.drain()
    assert await shown(bench, first) == [("approved", "", 13, 2.3, 2.6)]
    assert await bench.value("SELECT count(*) FROM quarantine") == 4
    assert len(await causes(bench)) == 12


async def test_a_batch_is_replayed_without_effect(bench: Bench, scribe: Scribe) -> None:
    """A rival at the same place of the journal stores nothing: no amount is added twice."""
    click_id = scribe.click(offer_id=INCREMENT)
    first = scribe.convert(click_id, amount="1")
    rivals = [bench.station(), bench.station()]
    conns = [await bench.connect() for _ in rivals]
    for rival, conn in zip(rivals, conns, strict=True):
        await rival.drain._feeds.discover(conn)
    scribe.convert(click_id, amount="1")
    await asyncio.gather(*map(Station.turn, rivals, conns), return_exceptions=True)
    await bench.drain()
    assert await shown(bench, first) == [("approved", "", 2, 1.2, 0.4)]


async def test_two_drains_add_up_without_a_deadlock(bench: Bench) -> None:
    """The same clicks' increments and reversals in two journals, in opposite orders, by two drains side by side."""
    revision = await bench.apply(OFFERS)
    clicks = bench.scribe(worker=2, revision=revision)
    click_ids = [clicks.click(offer_id=INCREMENT) for _ in range(20)]
    firsts = [clicks.convert(click_id, amount="1") for click_id in click_ids]
    await bench.drain(slot=2, drains=3)
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in (0, 1)]
    for scribe, order in zip(scribes, (click_ids, click_ids[::-1]), strict=True):
        for _ in range(5):
            for click_id in order:
                scribe.convert(click_id, amount="1")
                scribe.convert(scribe.click(offer_id=INCREMENT), amount="1")
    conns = [await bench.connect() for _ in scribes]
    stations = [bench.station(slot=slot, drains=3, batch_rows=30) for slot in (0, 1)]
    await asyncio.gather(*map(Station.turn, stations, conns))
    assert {row[2] for row in await shown(bench, *firsts) if row} == {11}
    assert len(await causes(bench)) == 200


async def test_amounts_in_an_offers_new_currency_change_no_sale_in_its_old_one(bench: Bench) -> None:
    """5,000 yen are not 5,000 dollars: the status follows, the money stays; a mere update is a duplicate."""
    in_yen = OFFERS.replace(SHARES, SHARES.replace('payout = "1"', 'payout = "200"\ncurrency = "JPY"'))
    scribe = bench.scribe(revision=await bench.apply(OFFERS))
    updated, increased, lead = (scribe.click(offer_id=number) for number in (UPDATE, INCREMENT, NEW))
    sales = [scribe.convert(click_id, amount="10") for click_id in (updated, increased)]
    pending = scribe.convert(lead, amount="10", status="pending")
    await bench.drain()
    scribe.revision = await bench.apply(in_yen)
    later = [scribe.convert(click_id, amount="5000") for click_id in (updated, increased)]
    told = scribe.convert(lead, amount="5000", status="approved")
    await bench.drain()
    assert await shown(bench, *sales, pending, told) == [("approved", "", 10, 2, 2)] * 3 + [None]
    assert await shown(bench, *later) == [("rejected", "duplicate", 5000, 0, 0)] * 2
    assert await bench.rows("SELECT currency, sum(payout) FROM stats_hourly WHERE conversions > 0 GROUP BY 1") == [("USD", 6)]
    for click_id in (updated, increased, lead):
        scribe.convert(click_id, status="reversed")
    await bench.drain()
    assert {row[0] for row in await shown(bench, *sales, pending) if row} == {"reversed"}


def test_what_is_written_back_stands_together() -> None:
    """`update_conversions` writes the columns from status to tier, in that order."""
    names = Held._fields
    assert names[names.index("status") : -1] == (
        "status", "reason", "status_code", "amount", "payout", "revenue", "tier"
    )  # fmt: skip
