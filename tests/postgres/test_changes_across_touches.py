"""What an advertiser says of a sale whose visitor has clicked again since: it is meant of the sale that came with that id."""

from itertools import count
from typing import Any
from uuid import UUID

import pytest

from tests.postgres.changing import BATCHES, offer
from tests.postgres.drains import CATALOG, Bench, Scribe, now_ms
from tests.recount import differences

DAY_MS = 86_400_000
PERCENT = (
    'payout_type = "cpa_percentage"\npayout_percent = "10"\nrevenue = "1"\n'
    '{0}[[offers.overrides]]\naff_id = 3\npayout_percent = "90"'
)
REJECT, UPDATE, NEW = range(40, 43)
OFFERS = CATALOG + "".join(
    offer(number, PERCENT.format(f'duplicates = "{mode}"\n'))
    for number, mode in ((REJECT, "reject"), (UPDATE, "update"), (NEW, "new"))
)


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


class Visitor:
    """One visitor, a second between whatever is done; partner 2 gets a tenth of an amount, partner 3 nine."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._moments = count(now_ms() - 60_000, 1000)

    def click(self, offer_id: int, **fields: Any) -> bytes:
        return self._scribe.click(offer_id=offer_id, ms=next(self._moments), **fields)

    def convert(self, click: bytes, *, later_ms: int = 0, **fields: Any) -> bytes:
        return self._scribe.convert(click, ms=next(self._moments) + later_ms, **fields)


@pytest.fixture
async def visitor(bench: Bench) -> Visitor:
    """Their requests are journalled under the catalog above."""
    return Visitor(bench.scribe(revision=await bench.apply(OFFERS)))


async def shown(bench: Bench, *ids: bytes) -> list[tuple[Any, ...] | None]:
    """Status, partner and payout of each; None: it has no row. And that the roll-ups are those of the rows."""
    assert await differences(bench.conn) == []
    query = "SELECT status, aff_id, payout FROM conversions WHERE conversion_id = $1"
    rows = [await bench.conn.fetchrow(query, UUID(bytes=one)) for one in ids]
    return [(row[0], row[1], float(row[2])) if row else None for row in rows]


@BATCHES
@pytest.mark.parametrize("offer_id", [REJECT, UPDATE, NEW])
async def test_a_refund_takes_back_the_sale_of_the_click_that_it_names(
    bench: Bench, visitor: Visitor, batch_rows: int, offer_id: int
) -> None:
    """The visitor came back by another partner and bought again: the refund of the first is not the second's."""
    click = visitor.click(offer_id)
    first = visitor.convert(click, amount="10")
    again = visitor.click(offer_id, aff_id=3, visitor=click)
    second = visitor.convert(again, amount="10")
    back, twice = visitor.convert(click, status="reversed"), visitor.convert(click, status="reversed")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, second, back) == [("reversed", 2, 1), ("approved", 3, 9), None]
    assert (await bench.verdict(twice))[0] == "rejected"


@BATCHES
async def test_a_refund_finds_its_sale_wherever_that_was_credited(bench: Bench, visitor: Visitor, batch_rows: int) -> None:
    """By the click that both name, though the sale went to a later one, and the refund would go to one later still."""
    click = visitor.click(REJECT)
    visitor.click(REJECT, aff_id=3, visitor=click)
    sale = visitor.convert(click, amount="10")
    visitor.click(REJECT, visitor=click)
    visitor.convert(click, status="reversed")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, sale) == [("reversed", 3, 9)]


@BATCHES
async def test_a_refund_after_the_window_finds_a_sale_that_was_credited_to_another_click(
    bench: Bench, visitor: Visitor, batch_rows: int
) -> None:
    """By then no click of the visitor's is in the window."""
    click = visitor.click(REJECT)
    visitor.click(REJECT, aff_id=3, visitor=click)
    sale = visitor.convert(click, amount="10")
    visitor.convert(click, status="reversed", later_ms=40 * DAY_MS)
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, sale) == [("reversed", 3, 9)]


@BATCHES
async def test_a_refund_by_an_earlier_id_of_the_visitor_finds_the_pixels_sale(
    bench: Bench, visitor: Visitor, batch_rows: int
) -> None:
    """The browser named the click of its cookie, the shop's server the one that it kept: there is no other sale."""
    click = visitor.click(REJECT)
    last = visitor.click(REJECT, visitor=click)
    sale = visitor.convert(last, via="pixel", amount="10")
    visitor.convert(click, status="reversed")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, sale) == [("reversed", 2, 1)]


@BATCHES
async def test_a_lead_is_approved_at_the_price_of_its_own_partner(bench: Bench, visitor: Visitor, batch_rows: int) -> None:
    """Whoever brought the visitor last has nothing to do with it."""
    click = visitor.click(REJECT)
    lead = visitor.convert(click, status="pending")
    visitor.click(REJECT, aff_id=3, visitor=click)
    told = visitor.convert(click, status="approved", amount="10")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, lead, told) == [("approved", 2, 1), None]


@BATCHES
async def test_an_update_goes_to_the_sale_of_the_click_that_it_names(bench: Bench, visitor: Visitor, batch_rows: int) -> None:
    """At that one's price; the sale of the visitor's later click stays as it is."""
    click = visitor.click(UPDATE)
    first = visitor.convert(click, amount="10")
    again = visitor.click(UPDATE, aff_id=3, visitor=click)
    early = visitor.convert(click, amount="20")
    second = visitor.convert(again, amount="10")
    late = visitor.convert(click, amount="30")
    await bench.drain(batch_rows=batch_rows)
    assert await shown(bench, first, early, second, late) == [("approved", 2, 3), None, ("approved", 3, 9), None]
