"""Words that come before what they are about, or after what they are not: journals stored long after each other."""


from typing import Any
from uuid import UUID

import pytest

from edge.drain.rehearsal import rehearse
from edge.tracking.headers import Headers
from edge.tracking.story import tell
from storage.postgres.stories import find_story
from tests.postgres.changing import BATCHES, EVENTS, NEW, OFFERS, UPDATE, shown
from tests.postgres.drains import Bench, make_settings, now_ms


@BATCHES
@pytest.mark.parametrize("offer_id", [NEW, UPDATE, EVENTS])
async def test_a_word_of_yesterday_takes_back_no_sale_of_today(bench: Bench, batch_rows: int, offer_id: int) -> None:
    """The journal with the sales was stored first: of two sales the word means the one that was there when it was sent."""
    revision = await bench.apply(OFFERS)
    scribe, other = bench.scribe(worker=0, revision=revision), bench.scribe(worker=1, revision=revision)
    moments = [now_ms() - minutes * 60_000 for minutes in (50, 40, 30, 20)]
    click_id, retried = (scribe.click(offer_id=offer_id, ms=moments[0]) for _ in range(2))
    first = scribe.convert(click_id, ms=moments[1], adv_unique1="a")
    later = scribe.convert(click_id, ms=moments[3], adv_unique1="b" if offer_id == EVENTS else "a")
    good = scribe.convert(retried, ms=moments[3], amount="10")
    back = other.convert(click_id, ms=moments[2], status="reversed")
    failed = other.convert(retried, ms=moments[2], status="rejected")
    await bench.drain(slot=0, drains=2, batch_rows=batch_rows)
    await bench.drain(slot=1, drains=2, batch_rows=batch_rows)
    statuses = [row[:2] if row else None for row in await shown(bench, first, later, back, good, failed)]
    assert statuses == [
        ("reversed", "advertiser"),
        None if offer_id == UPDATE else ("approved", ""),
        None,
        ("approved", ""),
        ("rejected", "advertiser"),
    ]


@BATCHES
async def test_a_sale_overwrites_no_later_update_of_itself(bench: Bench, batch_rows: int) -> None:
    """The journal with the corrected amount was stored first; what comes after the correction still corrects it."""
    revision = await bench.apply(OFFERS)
    scribe, other = bench.scribe(worker=0, revision=revision), bench.scribe(worker=1, revision=revision)
    click_id = scribe.click(offer_id=UPDATE, ms=now_ms() - 60_000)
    corrected = scribe.convert(click_id, ms=now_ms() - 20_000, amount="30")
    sale = other.convert(click_id, ms=now_ms() - 40_000, amount="10")
    await bench.drain(slot=0, drains=2, batch_rows=batch_rows)
    await bench.drain(slot=1, drains=2, batch_rows=batch_rows)
    assert await shown(bench, corrected, sale) == [("approved", "", 30, 4, 6), ("rejected", "duplicate", 10, 0, 0)]
    once_more = other.convert(click_id, amount="20")
    await bench.drain(slot=1, drains=2, batch_rows=batch_rows)
    assert await shown(bench, corrected, once_more) == [("approved", "", 20, 3, 4), None]


class Overtaken:
    """A sale in worker 1's journal, which is behind, and a word on it in worker 0's; one drain for each."""

    def __init__(self, bench: Bench, revision: int, offer_id: int, **word: Any) -> None:
        self.bench = bench
        self.scribes = [bench.scribe(worker=worker, revision=revision) for worker in (0, 1)]
        ours, other = self.scribes
        self.click_id = ours.click(offer_id=offer_id, ms=now_ms() - 60_000)
        self.sale = other.convert(self.click_id, ms=now_ms() - 40_000, conversion_unique_id=word.get("conversion_unique_id", ""))
        self.word = ours.convert(self.click_id, ms=now_ms() - 20_000, **word)

    async def drain(self, worker: int, **settings: Any) -> None:
        """What that worker has written."""
        await self.bench.drain(slot=worker, drains=2, **settings)


@BATCHES
@pytest.mark.parametrize("offer_id", [NEW, UPDATE, EVENTS])
@pytest.mark.parametrize("names", [{}, {"conversion_unique_id": "u"}], ids=["by_click", "by_unique_id"])
async def test_a_refund_waits_for_the_sale_that_it_has_overtaken(
    bench: Bench, batch_rows: int, offer_id: int, names: dict[str, str]
) -> None:
    """The database was away, and the journal with the refund is stored first: the sale is taken back all the same."""
    case = Overtaken(bench, await bench.apply(OFFERS), offer_id, status="reversed", **names)
    await bench.drain(slot=2, drains=3)  # both are known, as to a drain that has just started
    await case.drain(0, batch_rows=batch_rows)
    assert await shown(bench, case.word) == [None]
    assert "waits for the one that it takes back" in "".join(
        tell("", case.click_id, await find_story(bench.conn, case.click_id.hex(), case.click_id))
    )
    await case.drain(1, batch_rows=batch_rows)
    for scribe in case.scribes:
        scribe.beat(now_ms())
    await case.drain(1)
    await case.drain(0)
    assert [row[0] if row else None for row in await shown(bench, case.sale, case.word)] == ["reversed", None]
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0


async def test_a_refund_of_nothing_waits_until_the_other_journals_are_stored(bench: Bench) -> None:
    """A sale that comes later is another one's; then the word is on record. So it is with time, whatever journals say."""
    revision = await bench.apply(OFFERS)
    scribe, other = bench.scribe(worker=0, revision=revision), bench.scribe(worker=1, revision=revision)
    click_id, lone = (scribe.click(offer_id=NEW, ms=now_ms() - 60_000) for _ in range(2))
    words = [scribe.convert(one, ms=now_ms() - 30_000, status="rejected") for one in (click_id, lone)]
    later = other.convert(click_id, ms=now_ms() - 10_000)
    await bench.drain(slot=2, drains=3)
    await bench.drain(slot=0, drains=2)
    assert await shown(bench, *words) == [None, None]
    sent, settings = {"transaction_id": lone.hex(), "status": "rejected"}, make_settings(bench.data_dir, bench.url)
    tried = await rehearse(bench.conn, settings, "GET", "/aff_lsr", sent, Headers(), "198.51.100.7")
    assert tried.waits_until is None  # who tries it out is told what it comes to
    await bench.conn.execute(
        "UPDATE conversions_waiting SET deadline = now() WHERE conversion_id = $1", UUID(bytes=words[1])
    )
    await bench.drain(slot=0, drains=2)
    assert await shown(bench, *words) == [None, ("rejected", "advertiser", 0, 0, 0)]
    other.beat(now_ms())
    scribe.beat(now_ms())
    await bench.drain(slot=1, drains=2)
    await bench.drain(slot=0, drains=2)
    assert [row[0] if row else None for row in await shown(bench, *words, later)] == ["rejected", "rejected", "approved"]
