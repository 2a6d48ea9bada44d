"""Which touch a conversion is credited to: first or last of a cookie or contact, or a view."""

from random import Random
from typing import Any
from uuid import UUID

import pytest

from edge.tracking.click_id import ClickIds
from edge.tracking.story import tell
from storage.postgres.stories import find_story
from tests.postgres.drains import Bench, Scribe, Unleased, now_ms
from tests.recount import differences

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OFFERS = """
[[partners]]
id = 4
name = "Blocked"
status = "blocked"
[[offers]]
id = 18
advertiser_id = 1
name = "First"
url = "https://shop.example.com/?clickid={transaction_id}"
payout = "5.00"
attribution = "first"
click_window = "10d"
impression_window = "2h"
[[offers]]
id = 19
advertiser_id = 1
name = "No views"
url = "https://shop.example.com/?clickid={transaction_id}"
impression_window = "0"
"""
CREDIT = """
    SELECT click_id, aff_id, touched_at = to_timestamp(('x' || left(replace(click_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0),
           status, reason, named_click_id, extras ->> 'touch'
    FROM conversions WHERE conversion_id = $1
"""


@pytest.fixture
async def scribe(bench: Bench) -> Scribe:
    """A worker whose catalog has offers of both kinds."""
    return bench.scribe(revision=await bench.apply(OFFERS))


async def credited(bench: Bench, conversion_id: bytes) -> bytes:
    """The click that an approved conversion is credited to."""
    await bench.drain()
    click_id, _, is_its_time, status, reason, *_ = (await bench.rows(CREDIT, UUID(bytes=conversion_id)))[0]
    assert (status, reason, is_its_time) == ("approved", "", True)
    assert await differences(bench.conn) == []
    return bytes(click_id.bytes)


def family(scribe: Scribe, offer_id: int, **fields: Any) -> list[bytes]:
    """Three clicks of one cookie, 3, 2 and 1 hours ago, by partners 2, 3 and 2."""
    start_ms = now_ms() - 3 * HOUR_MS
    first = scribe.click(offer_id=offer_id, aff_id=2, ms=start_ms, **fields)
    later = [
        scribe.click(offer_id=offer_id, aff_id=aff_id, ms=start_ms + hours * HOUR_MS, visitor=first, **fields)
        for hours, aff_id in ((1, 3), (2, 2))
    ]
    return [first, *later]


@pytest.mark.parametrize(("offer_id", "expected"), [(17, 2), (18, 0)])
@pytest.mark.parametrize("named", [0, 1, 2])
async def test_the_cookies_first_or_last_click_is_credited_whichever_is_named(
    bench: Bench, scribe: Scribe, offer_id: int, expected: int, named: int
) -> None:
    """Offer 17 pays the last, offer 18 the first; the row is the credited click's, and remembers the named one."""
    clicks = family(scribe, offer_id)
    conversion = scribe.convert(clicks[named])
    assert await credited(bench, conversion) == clicks[expected]
    row = (await bench.rows(CREDIT, UUID(bytes=conversion)))[0]
    assert row[5] == (None if named == expected else UUID(bytes=clicks[named]))
    sent = await bench.value("SELECT transaction_id FROM conversions")
    assert sent == clicks[named].hex()
    note = await bench.value("SELECT note FROM conversion_changes")
    assert ("of the same cookie" in note) == (named != expected)


async def test_a_later_click_of_another_partner_takes_the_credit(bench: Bench, scribe: Scribe) -> None:
    """Also when the named click's session is in the worker's memory; payout is by the credited partner's terms."""
    first, second, _ = family(scribe, 17)
    other = scribe.click(aff_id=3, visitor=first)
    conversion = scribe.convert(second, session=scribe.sessions[second])
    assert await credited(bench, conversion) == other
    assert await bench.rows("SELECT aff_id, payout FROM conversions") == [(3, 6)]
    assert await bench.rows("SELECT aff_id FROM stats_hourly WHERE conversions = 1") == [(3,)]


async def test_a_click_after_the_conversion_takes_nothing(bench: Bench, scribe: Scribe) -> None:
    """Last means the last before the conversion happened, also when that is drained later."""
    first = scribe.click(ms=now_ms() - 3 * HOUR_MS)
    scribe.click(ms=now_ms() - HOUR_MS, visitor=first)
    conversion = scribe.convert(first, ms=now_ms() - 2 * HOUR_MS)
    assert await credited(bench, conversion) == first


async def test_clicks_of_other_offers_and_visitors_are_not_looked_at(bench: Bench, scribe: Scribe) -> None:
    """Neither another offer's cookie nor the same address and user agent make a family."""
    mine = scribe.click(ms=now_ms() - HOUR_MS)
    scribe.click(ms=now_ms() - HOUR_MS // 2)
    scribe.click(ms=now_ms() - HOUR_MS // 2, offer_id=18, visitor=mine)
    assert await credited(bench, scribe.convert(mine)) == mine


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": ["prefetch"]},
        {"outcome": "fallback"},
        {"reason": "partner_blocked", "aff_id": 4},
        {"reason": "unknown_partner", "aff_id": 99},
    ],
)
async def test_a_click_that_leads_nowhere_or_earns_nothing_takes_no_credit(
    bench: Bench, scribe: Scribe, fields: dict[str, Any]
) -> None:
    """Fetched ahead, sent to the fallback, of a partner who is blocked or unknown: the click before it stays the last."""
    mine = scribe.click(ms=now_ms() - HOUR_MS)
    other = scribe.click(ms=now_ms() - 60_000, visitor=mine, **fields)
    assert await credited(bench, scribe.convert(other)) == mine


async def test_the_window_ends_a_first_clicks_claim(bench: Bench, scribe: Scribe) -> None:
    """Offer 18 looks back 10 days: the first click within them is credited, and a click outside converts by a later."""
    old = scribe.click(offer_id=18, ms=now_ms() - 11 * DAY_MS)
    middle = scribe.click(offer_id=18, aff_id=3, ms=now_ms() - 9 * DAY_MS, visitor=old)
    last = scribe.click(offer_id=18, ms=now_ms() - HOUR_MS, visitor=old)
    assert await credited(bench, scribe.convert(last)) == middle
    again = scribe.convert(old, goal_id=0, conversion_unique_id="u1")
    assert await credited(bench, again) == middle


async def test_without_a_cookie_the_contact_decides(bench: Bench, scribe: Scribe) -> None:
    """Clicks with the same contact_id are one visitor's; a cookie that relates clicks goes before."""
    other = scribe.click(ms=now_ms() - 3 * HOUR_MS, contact_id="c-1")
    mine = scribe.click(ms=now_ms() - 2 * HOUR_MS, contact_id="c-1")
    latest = scribe.click(ms=now_ms() - HOUR_MS, contact_id="c-1", aff_id=3)
    scribe.click(ms=now_ms() - HOUR_MS, contact_id="c-2")
    assert await credited(bench, scribe.convert(other)) == latest
    with_cookie = scribe.click(ms=now_ms() - HOUR_MS // 2, contact_id="c-1", visitor=mine)
    await bench.drain()
    assert await credited(bench, scribe.convert(mine)) == with_cookie
    assert await bench.rows("SELECT DISTINCT contact_id FROM conversions") == [("c-1",)]


async def test_a_postback_sent_again_counts_once_though_the_visitor_clicked_in_between(
    bench: Bench, scribe: Scribe
) -> None:
    """Named and credited click are both claimed: the second is credited otherwise, and is a duplicate all the same."""
    mine = scribe.click(ms=now_ms() - HOUR_MS)
    assert await credited(bench, scribe.convert(mine)) == mine
    scribe.click(visitor=mine)
    again = scribe.convert(mine)
    await bench.drain()
    assert await bench.verdict(again) == ("rejected", "duplicate")
    assert await differences(bench.conn) == []


async def test_a_second_order_after_a_second_click_counts(bench: Bench, scribe: Scribe) -> None:
    """Under `last` each click may convert once; under `first` the whole cookie converts once a goal."""
    for offer_id, expected in ((17, ("approved", "")), (18, ("rejected", "duplicate"))):
        mine = scribe.click(offer_id=offer_id, ms=now_ms() - HOUR_MS)
        scribe.convert(mine)
        await bench.drain()
        second = scribe.convert(scribe.click(offer_id=offer_id, visitor=mine))
        await bench.drain()
        assert await bench.verdict(second) == expected


async def test_a_view_converts_within_its_window(bench: Bench, scribe: Scribe) -> None:
    """By the impression's id, stored long ago or in the same batch; extras say that it was a view."""
    late = scribe.impression(offer_id=18, ms=now_ms() - 3 * HOUR_MS)
    shown = scribe.impression(offer_id=18, ms=now_ms() - HOUR_MS)
    here = scribe.convert(shown, via="pixel", transaction_id="")
    assert await credited(bench, here) == shown
    row = (await bench.rows(CREDIT, UUID(bytes=here)))[0]
    assert row[-1] == "impression"
    off = scribe.impression(offer_id=19)
    conversions = [scribe.convert(late), scribe.convert(off)]
    await bench.drain()
    for conversion in conversions:
        assert await bench.verdict(conversion) == ("rejected", "outside_window")
    assert await differences(bench.conn) == []


async def test_a_click_beats_a_view(bench: Bench, scribe: Scribe) -> None:
    """Of the cookie that the browser had when it saw the ad; the view alone is credited where the click is too old."""
    old = scribe.click(offer_id=18, ms=now_ms() - 11 * DAY_MS)
    clicked = scribe.click(offer_id=18, ms=now_ms() - 2 * HOUR_MS)
    beaten = scribe.impression(offer_id=18, ms=now_ms() - HOUR_MS, visitor=clicked)
    shown = scribe.impression(offer_id=18, ms=now_ms() - HOUR_MS, visitor=old)
    assert await credited(bench, scribe.convert(beaten)) == clicked
    assert await credited(bench, scribe.convert(shown)) == shown


async def test_a_view_that_is_drained_late_is_waited_for(bench: Bench, scribe: Scribe) -> None:
    """As a click is: another worker's journal is behind; also after the wait, it decides again."""
    late = bench.scribe(worker=1, revision=scribe.revision)
    session = late.session()
    conversion = scribe.convert(session.click_id)
    await bench.drain()
    assert await bench.verdict(conversion) == ("", "")
    late.impression(click_id=session.click_id)
    assert await credited(bench, conversion) == session.click_id


async def test_explain_says_which_touch_was_credited_and_why(bench: Bench, scribe: Scribe) -> None:
    """Asked by the click that was named, by the one that was credited, or by an id that is not ours."""
    named, _, last = family(scribe, 17, params={"ad_id": "TUNE-1"})
    assert await credited(bench, scribe.convert(named)) == last
    for asked, click_id in ((named.hex(), named), (last.hex(), last), ("TUNE-1", None)):
        told = "\n".join(tell(asked, click_id, await find_story(bench.conn, asked, click_id)))
        assert f"named         {named.hex()}, but another touch is credited:" in told
        assert f"credited      {last.hex()}" in told
        assert "credited to the last click of the same cookie, not to the click that was named" in told


async def test_explain_finds_the_click_of_another_nodes_id(bench: Bench, scribe: Scribe) -> None:
    """An id of the same shape as ours, minted under another secret, as the custom id of a click."""
    theirs = ClickIds(["another-secret-of-16"], 0, 0, Unleased()).mint(now_ms())
    click_id = scribe.click(params={"ad_id": theirs.hex()})
    await bench.drain()
    told = "\n".join(tell(theirs.hex(), theirs, await find_story(bench.conn, theirs.hex(), theirs)))
    assert told.startswith(f"'{theirs.hex()}' is another system's id of this click:\n{click_id.hex()}  minted")


async def test_what_waits_for_an_id_that_is_not_ours_is_told(bench: Bench, scribe: Scribe) -> None:
    """No click and no conversion yet, and still it is known."""
    scribe.convert(b"", transaction_id="TUNE-2", is_external=True)
    await bench.drain()
    told = "\n".join(tell("TUNE-2", None, await find_story(bench.conn, "TUNE-2", None)))
    assert "waits for its click" in told


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_many_visitors_clicks_are_credited_as_by_a_plain_search(bench: Bench, scribe: Scribe, seed: int) -> None:
    """Sixty clicks of nine visitors by cookie, contact or neither; a hundred conversions over twelve days, in many batches."""
    random, start_ms = Random(seed), now_ms() - 12 * DAY_MS
    visitors: dict[int, list[bytes]] = {}
    for click_ms in sorted(random.randrange(start_ms, start_ms + 12 * DAY_MS - 60_000) for _ in range(60)):
        number = random.randrange(9)
        mine = visitors.setdefault(number, [])
        fields: dict[str, Any] = {"contact_id": f"c-{number}"} if number % 3 == 1 else {}
        if number % 3 == 0 and mine:
            fields["visitor"] = mine[0]
        mine.append(scribe.click(offer_id=17 + number % 2, ms=click_ms, aff_id=random.choice([2, 3]), **fields))
    expected = {}
    for place in range(100):
        number = random.choice(list(visitors))
        named = random.choice(visitors[number])
        at_ms = random.randrange(_ms(named), now_ms())
        known = visitors[number] if number % 3 != 2 else [named]
        window_ms = (30 if number % 2 == 0 else 10) * DAY_MS
        fitting = [one for one in known if 0 <= at_ms - _ms(one) <= window_ms] or [named]
        choose = max if number % 2 == 0 else min
        expected[scribe.convert(named, ms=at_ms, conversion_unique_id=f"u{place}")] = choose(fitting)
    await bench.drain(batch_rows=7)
    rows = await bench.rows("SELECT conversion_id, click_id FROM conversions")
    assert {one.bytes: click.bytes for one, click in rows} == expected
    assert await differences(bench.conn) == []


def _ms(click_id: bytes) -> int:
    return int.from_bytes(click_id[:6], "big")
