"""What tests of caps share: the bench's catalog with caps in it, what is used of them, and verdicts."""

from typing import Any

from tests.cap_recount import cap_differences
from tests.postgres.drains import CATALOG, Bench
from tests.recount import differences

APPROVED, CAPPED = ("approved", ""), ("rejected", "capped")


async def assert_exact(bench: Bench) -> None:
    """Usage and roll-ups are those of the rows."""
    assert await cap_differences(bench.conn) == []
    assert await differences(bench.conn) == []


async def cap(bench: Bench, fields: str, *, partner_3: str = "") -> int:
    """Offer 17 with those fields, its override of partner 3 with those caps; the revision."""
    text = CATALOG.replace("[[offers.goals]]", f"{fields}\n[[offers.goals]]")
    for name, usual in (("payout", "5.00"), ("revenue", "7.50")):
        if f"\n{name} = " in f"\n{fields}":
            text = text.replace(f'{name} = "{usual}"\n', "", 1)
    return await bench.apply(text + (f"caps = {{ {partner_3} }}\n" if partner_3 else ""))


async def used(bench: Bench, period: str = "total", aff_id: int = 0) -> tuple[Any, ...] | None:
    """Clicks, conversions, payout and revenue of offer 17; None: not counted."""
    rows = await bench.rows(
        "SELECT clicks, conversions, payout, revenue FROM cap_usage"
        " WHERE offer_id = 17 AND aff_id = $1 AND period = $2 AND is_counted",
        aff_id,
        period,
    )
    return rows[0] if rows else None


def many_capped_offers(caps: str, count: int) -> str:
    """Offers from 101 on with those caps, partner 3 with one of its own in each."""
    return "\n".join(
        f'[[offers]]\nid = {number}\nadvertiser_id = 1\nname = "O"\nurl = "https://shop.example.com/"\n'
        f'payout = "5"\ncaps = {{ {caps} }}\noverrides = [{{ aff_id = 3, caps = {{ total_conversions = 7 }} }}]'
        for number in range(101, 101 + count)
    )
