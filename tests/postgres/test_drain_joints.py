"""Where the parts of the drain meet: keys, changes, tiers, caps, credit, postbacks and commands, two or more at a time."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from edge.drain.catalogs import KEPT_REVISIONS, CatalogHistory
from edge.drain.changing import change_conversion
from edge.drain.importing import ClickImporter
from edge.drain.tiers import TierCounts
from edge.imports.click_rows import ForeignClick
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeRefused, Wanted
from edge.tracking.signatures import sign
from storage.postgres.catalog import load_current
from tests.cap_recount import cap_differences
from tests.postgres.capped import cap, used
from tests.postgres.drains import CATALOG, Bench, Scribe, Station, make_settings, now_ms, until
from tests.recount import differences

APPROVED, CAPPED, DUPLICATE = ("approved", ""), ("rejected", "capped"), ("rejected", "duplicate")
SECRET = "shared with the advertiser"
SHARE = 'payout_type = "cpa_percentage"\npayout_percent = "10"'
TIERS = 'tiers = [{ from_conversions = 2, payout = "8" }]'
BATCHES = pytest.mark.parametrize("batch_rows", [1000, 1], ids=["one_batch", "a_batch_each"])
_MISCOUNTED = """
    SELECT tiers.offer_id, tiers.aff_id, tiers.conversions FROM tier_counts AS tiers
    WHERE tiers.conversions <> (
        SELECT coalesce(sum(conversions_delta), 0) FROM conversion_changes JOIN conversions USING (conversion_id)
        WHERE offer_id = tiers.offer_id AND aff_id = tiers.aff_id AND date_trunc('month', booked_hour, 'UTC')::date = month)
"""
_KEYLESS = """
    SELECT key FROM conversion_keys AS keys WHERE key NOT LIKE 's:%' AND NOT EXISTS (
        SELECT FROM conversions WHERE conversions.conversion_id = keys.conversion_id
        AND (status <> 'rejected' OR status_code = 213))
"""


async def verdicts(bench: Bench, *ids: bytes) -> list[tuple[str, str]]:
    """Status and reason of each; and all that is counted is what the rows say, no key is held for nothing."""
    assert await cap_differences(bench.conn) == []
    assert await differences(bench.conn) == []
    assert await bench.rows(_MISCOUNTED) == []
    assert await bench.rows(_KEYLESS) == []
    return [await bench.verdict(one) for one in ids]


async def payouts(bench: Bench, *ids: bytes) -> list[float]:
    query = "SELECT payout FROM conversions WHERE conversion_id = $1"
    return [float(await bench.value(query, UUID(bytes=one))) for one in ids]


async def change(bench: Bench, conversion_id: bytes, status: Any = "", **money: str) -> None:
    """As `clickedge conversion` does it."""
    wanted = Wanted(status, "other", **{name: Decimal(text) for name, text in money.items()})
    await change_conversion(bench.conn, CatalogHistory(), UUID(bytes=conversion_id), wanted, actor="a test")


def two_clicks(scribe: Scribe, **fields: Any) -> list[bytes]:
    """Of one cookie, two hours and one hour ago."""
    first = scribe.click(ms=now_ms() - 7_200_000, **fields)
    return [first, scribe.click(ms=now_ms() - 3_600_000, visitor=first, **fields)]


def signed(**params: str) -> dict[str, Any]:
    """Parameters of a postback, signed now."""
    sent = {"timestamp": str(now_ms() // 1000), **params}
    return sent | {"signature": sign(sent, SECRET)}


@BATCHES
async def test_a_duplicate_by_the_named_click_leaves_the_credited_one_free(bench: Bench, batch_rows: int) -> None:
    """The order of the first click sent again names a click that converted; the second click's own order still counts."""
    scribe = bench.scribe()
    first = scribe.click(ms=now_ms() - 7_200_000)
    sale = scribe.convert(first)
    await bench.drain()
    second = scribe.click(ms=now_ms() - 3_600_000, visitor=first)
    again, own, more = scribe.convert(first), scribe.convert(second), scribe.convert(second)
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, sale, again, own, more) == [APPROVED, DUPLICATE, APPROVED, DUPLICATE]


@BATCHES
async def test_what_a_capped_one_leaves_is_taken_by_one_that_wants_more(bench: Bench, batch_rows: int) -> None:
    """The dear one is capped; the cheap one behind it, which names another click, has the keys of both."""
    fields = f'caps = {{ total_payout = "6" }}\n{SHARE}'
    scribe = bench.scribe(revision=await cap(bench, fields))
    first, second = two_clicks(scribe)
    ids = [scribe.convert(second, amount="100"), scribe.convert(first, amount="50"), scribe.convert(second, amount="1")]
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, *ids) == [CAPPED, APPROVED, DUPLICATE]
    holders = await bench.rows("SELECT DISTINCT conversion_id FROM conversion_keys")
    assert holders == [(UUID(bytes=ids[1]),)]


@BATCHES
async def test_the_first_that_counts_bears_no_mark(bench: Bench, batch_rows: int) -> None:
    """`new_repeated`: capped ones and duplicates of elsewhere are not the first; the next one after the first is marked."""
    fields = f'duplicates = "new_repeated"\ncaps = {{ total_payout = "20" }}\n{SHARE}'
    scribe = bench.scribe(revision=await cap(bench, fields))
    elsewhere = scribe.convert(scribe.click(), conversion_unique_id="x", amount="1")
    click = scribe.click()
    ids = [scribe.convert(click, amount="1", conversion_unique_id="x"), scribe.convert(click, amount="900")]
    ids += [scribe.convert(click, amount="1") for _ in range(2)]
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, elsewhere, *ids) == [APPROVED, DUPLICATE, CAPPED, APPROVED, APPROVED]
    marked = await bench.rows("SELECT conversion_id FROM conversions WHERE extras ->> 'repeated' = '1'")
    assert marked == [(UUID(bytes=ids[-1]),)]


async def test_tiers_that_go_and_come_again_have_missed_nothing(bench: Bench) -> None:
    """While the offer had none its conversions were counted on: the next is paid by its place."""
    tiered = await cap(bench, TIERS)
    scribe = bench.scribe(revision=tiered)
    scribe.convert(scribe.click())
    await bench.drain()
    scribe.revision = await cap(bench, "tiers = []")
    plain = scribe.convert(scribe.click())
    await bench.drain()
    scribe.revision = await cap(bench, TIERS.replace("2", "3"))
    third = scribe.convert(scribe.click())
    await bench.drain()
    assert await verdicts(bench, plain, third) == [APPROVED, APPROVED]
    assert await payouts(bench, plain, third) == [5, 8]


@BATCHES
async def test_beyond_a_cap_no_tier_is_reached(bench: Bench, batch_rows: int) -> None:
    """A capped one is not the partner's next; one kept as pending gets its tier when a person approves it."""
    fields = f'{TIERS.replace("2", "3")}\ncaps = {{ total_conversions = 2 }}\ncap_conversions = "pending"'
    scribe = bench.scribe(revision=await cap(bench, fields))
    clicks = [scribe.click() for _ in range(4)]
    ids = [scribe.convert(click) for click in clicks]
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, *ids) == [APPROVED] * 2 + [("pending", "capped")] * 2
    assert await payouts(bench, *ids) == [5, 5, 5, 5]
    await change(bench, ids[1], "reversed")
    await change(bench, ids[3], "approved")
    await change(bench, ids[2], "approved")
    assert await payouts(bench, *ids) == [5, 5, 8, 5]
    assert await used(bench) == (4, 3, Decimal(18), Decimal("22.5"))
    assert await verdicts(bench, ids[2]) == [APPROVED]


async def test_a_dear_tier_is_what_a_money_cap_weighs(bench: Bench) -> None:
    """5 and 8 fit under 14, a second 8 does not, and is not counted as the partner's third."""
    scribe = bench.scribe(revision=await cap(bench, f'{TIERS}\ncaps = {{ total_payout = "14" }}'))
    ids = [scribe.convert(scribe.click()) for _ in range(3)]
    await bench.drain()
    assert await verdicts(bench, *ids) == [APPROVED, APPROVED, CAPPED]
    assert await payouts(bench, *ids) == [5, 8, 0]
    assert await bench.rows("SELECT conversions FROM tier_counts") == [(2,)]


@BATCHES
async def test_no_postback_approves_what_is_beyond_a_cap(bench: Bench, batch_rows: int) -> None:
    """Sent again with `status=approved` it stays pending, for a person; a reversal takes it back as ever."""
    fields = 'caps = { total_conversions = 1 }\ncap_conversions = "pending"'
    scribe = bench.scribe(revision=await cap(bench, fields))
    clicks = [scribe.click() for _ in range(2)]
    ids = [scribe.convert(click, status="approved") for click in clicks]
    again = scribe.convert(clicks[1], status="approved")
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, *ids, again) == [APPROVED, ("pending", "capped"), DUPLICATE]
    scribe.convert(clicks[1], status="reversed")
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, *ids) == [APPROVED, ("rejected", "advertiser")]
    assert await used(bench) == (2, 1, Decimal(5), Decimal("7.5"))


@BATCHES
async def test_a_signed_reversal_takes_back_one_conversion_once(bench: Bench, batch_rows: int) -> None:
    """Under `new` a click has many: the same request heard again is a replay and does not take back another."""
    text = CATALOG.replace('name = "Plain"', f'name = "Plain"\nsigning_secret = "{SECRET}"')
    scribe = bench.scribe(
        revision=await bench.apply(text.replace('payout = "5.00"', 'payout = "5.00"\nduplicates = "new"'))
    )
    click = scribe.click()
    ids = [scribe.convert(click, **signed(amount=str(number))) for number in range(3)]
    await bench.drain()
    reversal = signed(status="reversed")
    scribe.convert(click, **reversal)
    replayed = scribe.convert(click, **reversal)
    await bench.drain(batch_rows=batch_rows)
    assert sorted(await verdicts(bench, *ids)) == [APPROVED, APPROVED, ("reversed", "advertiser")]
    assert await bench.verdict(replayed) == ("rejected", "replayed")


async def test_a_reversal_that_found_nothing_may_be_sent_again(bench: Bench) -> None:
    """It overtook its sale; once that is there, the very same request takes it back."""
    text = CATALOG.replace('name = "Plain"', f'name = "Plain"\nsigning_secret = "{SECRET}"')
    scribe = bench.scribe(revision=await bench.apply(text))
    click, reversal = scribe.click(), signed(status="reversed")
    early, sale = scribe.convert(click, **reversal), scribe.convert(click, **signed(amount="5"))
    await bench.drain()
    assert await verdicts(bench, early, sale) == [("rejected", "advertiser"), APPROVED]
    scribe.convert(click, **reversal)
    await bench.drain()
    assert await verdicts(bench, sale) == [("reversed", "advertiser")]


@BATCHES
async def test_an_amount_goes_to_the_same_offer_and_partner_only(bench: Bench, batch_rows: int) -> None:
    """Without clicks a unique id may be sent for another partner or offer: that updates nothing, at nobody's price."""
    fields = f'tracking = "partner_id"\nduplicates = "update"\ncaps = {{ total_payout = "50" }}\n{SHARE}'
    scribe = bench.scribe(revision=await cap(bench, fields))
    sent: dict[str, Any] = {"transaction_id": "", "offer_id": 17, "conversion_unique_id": "u"}
    ids = [scribe.convert(b"", **sent, aff_id="2", amount="100"), scribe.convert(b"", **sent, aff_id="3", amount="7")]
    scribe.convert(b"", **sent, aff_id="2", amount="200")
    await bench.drain(batch_rows=batch_rows)
    assert await verdicts(bench, *ids) == [APPROVED, DUPLICATE]
    assert await payouts(bench, *ids) == [20, 0]
    assert await used(bench) == (0, 1, Decimal(20), Decimal("7.5"))


async def test_what_a_person_approves_holds_its_key_without_a_click_too(bench: Bench) -> None:
    """A rebill and an order by promo code, refused by a cap, approved by hand: sent again, both are duplicates."""
    fields = 'tracking = "partner_id"\npromo_codes = [{ code = "XMAS", aff_id = 3 }]\ncaps = { total_conversions = 0 }'
    scribe = bench.scribe(revision=await cap(bench, fields))
    rebill: dict[str, Any] = {"transaction_id": "", "offer_id": 17, "aff_id": "2", "adv_unique1": "may"}
    order: dict[str, Any] = {"transaction_id": "", "offer_id": 17, "promo_code": "XMAS", "conversion_unique_id": "o-1"}
    ids = [scribe.convert(b"", **rebill), scribe.convert(b"", **order)]
    await bench.drain()
    assert await verdicts(bench, *ids) == [CAPPED, CAPPED]
    for one in ids:
        await change(bench, one, "approved")
    scribe.revision = await cap(bench, fields.replace("= 0", "= 9"))
    again = [scribe.convert(b"", **rebill), scribe.convert(b"", **order)]
    await bench.drain()
    assert await verdicts(bench, *ids, *again) == [APPROVED, APPROVED, DUPLICATE, DUPLICATE]


async def test_what_a_person_approves_holds_the_named_clicks_key(bench: Bench) -> None:
    """Credited to the last click, it was named by the first: the order sent again after one more click is a duplicate."""
    scribe = bench.scribe(revision=await cap(bench, "caps = { total_conversions = 0 }"))
    first, _ = two_clicks(scribe)
    sale = scribe.convert(first)
    await bench.drain()
    await change(bench, sale, "approved")
    scribe.revision = await cap(bench, "caps = { total_conversions = 9 }")
    scribe.click(visitor=first)
    again = scribe.convert(first)
    await bench.drain()
    assert await verdicts(bench, sale, again) == [APPROVED, DUPLICATE]


@BATCHES
async def test_an_order_of_a_lost_click_counts_once_by_its_promo_code(bench: Bench, batch_rows: int) -> None:
    """A retried postback names the same click, though that never came."""
    scribe = bench.scribe(revision=await cap(bench, 'promo_codes = [{ code = "XMAS", aff_id = 3 }]'))
    lost = scribe.ids.mint(now_ms())
    ids = [scribe.convert(lost, offer_id=17, promo_code="XMAS") for _ in range(2)]
    await bench.drain(batch_rows=batch_rows, conversion_wait_s=0)
    assert await verdicts(bench, *ids) == [APPROVED, DUPLICATE]


async def test_a_late_click_makes_its_conversion_the_one_beyond_the_cap(bench: Bench) -> None:
    """Refused for want of its click, then decided again under cap and tier; its partner hears of the outcome once."""
    fields = f"{TIERS}\ncaps = {{ total_conversions = 2 }}"
    await cap(bench, fields)
    hearing = 'name = "Deal Blog"\npostback_url = "https://partner.example/?id={conversion_id}"'
    revision = await bench.apply(CATALOG.replace('name = "Deal Blog"', hearing).split("[[offers]]")[0])
    late, scribe = bench.scribe(worker=1, revision=revision), bench.scribe(revision=revision)
    sessions = [late.session() for _ in range(3)]
    ids = [scribe.convert(session.click_id) for session in sessions]
    known = scribe.convert(scribe.click())
    await bench.drain(slot=0, drains=2, conversion_wait_s=0)
    assert await verdicts(bench, *ids, known) == [("rejected", "unknown_click")] * 3 + [APPROVED]
    for session in sessions:
        late.click(session)
    await bench.drain(slot=1, drains=2)
    assert sorted(await verdicts(bench, *ids)) == [APPROVED, CAPPED, CAPPED]
    assert sorted(await payouts(bench, *ids)) == [0, 0, 8]
    told = await bench.rows("SELECT event, status, count(*) FROM postback_outbox GROUP BY 1, 2")
    assert told == [("decided", "approved", 2)]


async def test_a_view_a_promo_code_and_an_update_meet_under_one_cap(bench: Bench) -> None:
    """A view converts, is updated at its own price, and what it earns is what the cap counts."""
    fields = f'duplicates = "update"\nimpression_window = "1d"\ncaps = {{ total_payout = "20" }}\n{SHARE}'
    scribe = bench.scribe(revision=await cap(bench, fields))
    view = scribe.impression()
    sale = scribe.convert(view, amount="100")
    scribe.convert(view, amount="150")
    beyond = scribe.convert(scribe.click(), amount="60")
    await bench.drain()
    scribe.convert(view, amount="40")
    fits = scribe.convert(scribe.click(), amount="160")
    await bench.drain()
    assert await verdicts(bench, sale, beyond, fits) == [APPROVED, CAPPED, APPROVED]
    assert await used(bench) == (2, 2, Decimal(20), Decimal(15))


async def test_a_batch_knows_all_the_revisions_that_its_events_name(bench: Bench) -> None:
    """More than are kept, with clicks, caps and conversions of each, and changes of conversions decided long before."""
    scribe = bench.scribe(revision=await cap(bench, 'duplicates = "increment"\ncaps = { total_conversions = 99 }'))
    clicks = []
    for number in range(KEPT_REVISIONS + 4):
        scribe.revision = await cap(
            bench, f'duplicates = "increment"\ncaps = {{ total_conversions = {100 + number} }}\npayout = "{number}.5"'
        )
        clicks.append(scribe.click())
        scribe.convert(clicks[-1], amount="1")
    station = bench.station()
    await bench.drain(station)
    ids = [scribe.convert(click, amount="2", revision=revision) for revision, click in enumerate(clicks, 3)]
    await bench.drain(station)
    assert await verdicts(bench, *ids) == [("", "")] * len(ids)
    assert await bench.value("SELECT sum(amount) FROM conversions") == 3 * len(clicks)


async def test_a_count_is_made_when_nobody_books_beside_it(bench: Bench) -> None:
    """A batch that knows no tiers is at work; the first that does waits for its end, and counts it."""
    revision = await cap(bench, TIERS)
    scribe = bench.scribe(revision=revision)
    first = scribe.convert(scribe.click())
    slow = await bench.connect()
    transaction = slow.transaction()
    await transaction.start()
    counts = TierCounts(ZoneInfo("UTC"))
    counts.need(17, 2, datetime.now(UTC), is_tiered=False)
    await counts.lock(slow)
    draining = asyncio.create_task(bench.drain())
    await until(lambda: bench.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
    await transaction.rollback()
    await draining
    assert await verdicts(bench, first) == [APPROVED]


async def test_imported_clicks_count_under_caps(bench: Bench) -> None:
    """A cap that is counted already knows of them, as does one that is counted later."""
    await cap(bench, "caps = { total_clicks = 5 }")
    scribe = bench.scribe()
    scribe.click()
    await bench.drain()
    importer = ClickImporter(
        make_settings(bench.data_dir, bench.url),
        Catalog.empty().changed(*await load_current(bench.conn)),
        "tune",
    )
    known = ForeignClick("a", now_ms(), 17, 2, 0, 0, "", "203.0.113.9", "", "", "", "", "", "", False, {})
    await importer.store(bench.conn, [known])
    assert await used(bench) == (2, 0, 0, 0)
    assert await verdicts(bench) == []


async def test_one_poisonous_conversion_that_waits_stops_nobody(bench: Bench) -> None:
    """Two wait for ids of another network, brought in beside the journals: one is settled, the other quarantined."""
    scribe = bench.scribe()
    click = scribe.click()
    await bench.drain()
    good = scribe.convert(b"", transaction_id="a", is_external=True)
    scribe.convert(b"", transaction_id="b", is_external=True, adv_sub1="\0")
    station, conn = bench.station(), await bench.connect()
    await station.drain._feeds.discover(conn)
    for feed in station.drain._feeds:
        await station.drain._advance(conn, feed)
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 2
    await bench.conn.execute(
        "INSERT INTO external_ids (transaction_id, click_id) SELECT id, $1 FROM unnest('{a,b}'::text[]) AS id",
        UUID(bytes=click),
    )
    await station.drain._store.settle_overtaken(conn, datetime.now(UTC) - timedelta(minutes=1))
    assert await verdicts(bench, good) == [APPROVED]
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await bench.value("SELECT count(*) FROM quarantine") == 1


async def test_drains_commands_and_new_catalogs_never_wait_in_a_ring(embedded_bench: Bench) -> None:
    """Caps, tiers, increments, unique ids and reversals in two journals, people changing the same, caps that change."""
    bench = embedded_bench
    fields = f'{TIERS}\nduplicates = "increment"\ncaps = {{ total_payout = "400", daily_conversions = 90 }}'
    revision = await cap(bench, fields, partner_3="total_conversions = 30")
    clicks = bench.scribe(worker=2, revision=revision)
    click_ids = [clicks.click(aff_id=2 + number % 2) for number in range(30)]
    firsts = [clicks.convert(click_id, amount="1") for click_id in click_ids[:15]]
    await bench.drain(slot=2, drains=3)
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in (0, 1)]
    for scribe, order in zip(scribes, (click_ids, click_ids[::-1]), strict=True):
        for number, click_id in enumerate(order * 3):
            scribe.convert(click_id, amount="1", status=("", "pending", "reversed", "approved")[number % 4])
            scribe.convert(scribe.click(aff_id=3), conversion_unique_id=str(number % 40))
            scribe.convert(b"", transaction_id="", offer_id=17, aff_id="2", promo_code="no")
    stations = [bench.station(slot=slot, drains=3, batch_rows=20) for slot in (0, 1)]
    people = await bench.connect()

    async def adjust() -> None:
        for number, one in enumerate(firsts * 2):
            wanted = Wanted("", "other", payout=Decimal(number % 7), amount=Decimal(number))
            with suppress(ChangeRefused):
                await change_conversion(people, CatalogHistory(), UUID(bytes=one), wanted, actor="a test")

    async def apply() -> None:
        for number in range(6):
            await cap(bench, fields.replace("400", str(400 + number)), partner_3="total_conversions = 30")

    conns = [await bench.connect() for _ in stations]
    await asyncio.gather(*map(Station.turn, stations, conns), adjust(), apply())
    assert await verdicts(bench) == []
