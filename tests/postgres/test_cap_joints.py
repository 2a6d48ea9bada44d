"""Where caps and tiers meet the other parts of the drain: duplicates, changes, late clicks, views, imports, commands."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.drain.importing import ClickImporter
from edge.drain.tiers import TierCounts
from edge.imports.click_rows import ForeignClick
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeRefused, Wanted
from storage.postgres.catalog import load_current
from tests.postgres.capped import APPROVED, CAPPED, cap, used
from tests.postgres.drains import CATALOG, Bench, Station, make_settings, now_ms, until
from tests.postgres.joints import BATCHES, DUPLICATE, SHARE, TIERS, change, payouts, verdicts


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
