"""Where the parts of the drain meet: keys, credit, changes, revisions and poison, two or more at a time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from edge.drain.catalogs import KEPT_REVISIONS
from edge.tracking.signatures import sign
from tests.postgres.capped import APPROVED, CAPPED, cap, used
from tests.postgres.drains import CATALOG, Bench, Scribe, now_ms
from tests.postgres.joints import BATCHES, DUPLICATE, SHARE, change, payouts, verdicts

SECRET = "shared with the advertiser"


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
