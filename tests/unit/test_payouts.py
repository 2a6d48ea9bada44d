"""Money: exact, rounded once, never a float."""

from decimal import Decimal, localcontext
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.catalog import Terms
from edge.tracking.catalog_document import PayoutType
from edge.tracking.payouts import click_money, conversion_money, impression_money, parse_amount, uses_percentage

MONEY = st.decimals(0, Decimal("999999999999.999999"), places=6)
PERCENT = st.decimals(0, 1000, places=6)
TYPES = st.sampled_from(["cpa_flat", "cpa_percentage", "cpa_both", "cpc", "cpm"])


def terms(kind: PayoutType, rate: str = "5", percent: str = "10") -> Terms:
    """The partner's terms of that kind; the advertiser pays 7.50 flat."""
    return Terms(kind, Decimal(rate), Decimal(percent), "cpa_flat", Decimal("7.5"), Decimal(0), "reject")


@pytest.mark.parametrize(
    ("kind", "payout"),
    [("cpa_flat", "5"), ("cpa_percentage", "1.999"), ("cpa_both", "6.999"), ("cpc", "0"), ("cpm", "0")],
)
def test_a_conversion_earns_by_its_payout_type(kind: PayoutType, payout: str) -> None:
    """Payout and revenue follow their own types."""
    money = conversion_money(terms(kind), Decimal("19.99"))
    assert (money.payout, money.revenue) == (Decimal(payout), Decimal("7.5"))
    assert money.payout.as_tuple().exponent == -6


def test_a_click_earns_only_under_cpc_and_an_impression_a_thousandth_under_cpm() -> None:
    """The other side, flat here, earns on neither."""
    assert click_money(terms("cpc", "0.35")) == (Decimal("0.35"), 0)
    assert impression_money(terms("cpm", "2.5")) == (Decimal("0.0025"), 0)
    for kind in get_args(PayoutType):
        assert kind == "cpc" or click_money(terms(kind)) == (0, 0)
        assert kind == "cpm" or impression_money(terms(kind)) == (0, 0)


@pytest.mark.parametrize(("rate", "payout"), [("0.0005", "0"), ("0.0015", "0.000002"), ("0.0025", "0.000002")])
def test_halves_round_to_even(rate: str, payout: str) -> None:
    """A thousandth of a rate falls between two millionths."""
    assert impression_money(terms("cpm", rate)).payout == Decimal(payout)


@given(TYPES, MONEY, PERCENT, MONEY)
def test_money_is_never_negative_and_no_thread_context_rounds_it(
    kind: PayoutType, rate: Decimal, percent: Decimal, amount: Decimal
) -> None:
    """A caller's context of 3 digits changes nothing; the error is half a millionth at most."""
    given_terms = Terms(kind, rate, percent, kind, rate, percent, "reject")
    with localcontext() as context:
        context.prec = 3
        money = conversion_money(given_terms, amount)
    with localcontext() as context:
        context.prec = 80
        exact = (rate if kind in ("cpa_flat", "cpa_both") else 0) + (
            amount * percent / 100 if kind in ("cpa_percentage", "cpa_both") else 0
        )
        assert abs(money.payout - exact) <= Decimal("0.0000005")
    assert money.payout == money.revenue >= 0


def test_a_percentage_of_nothing_is_not_used() -> None:
    """`cpa_both` without a percentage pays flat, whatever the amount's currency."""
    assert uses_percentage(terms("cpa_percentage"))
    assert uses_percentage(terms("cpa_both"))
    assert not uses_percentage(terms("cpa_both", percent="0"))
    assert not uses_percentage(terms("cpa_flat"))
    assert uses_percentage(Terms("cpc", Decimal(1), Decimal(0), "cpa_percentage", Decimal(0), Decimal(3), "reject"))


@pytest.mark.parametrize("text", ["0", "12", "12.5", ".5", "007.10", "999999999999.999999"])
def test_plain_amounts_are_read_exactly(text: str) -> None:
    """Digits, at most one point."""
    assert parse_amount(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        *("1e999", "1e2", "-5", "+5", "NaN", "Infinity", "1,50", "1_000", "٣", "1" * 40, "1234567890123", "1.1234567"),
        *("", ".", "5.", " 5", "5 ", "5\n", "0x10", "$5", "\ud800"),
    ],
)
def test_anything_else_is_no_amount(text: str) -> None:
    """What Decimal would take and the column or a reader would not."""
    assert parse_amount(text) is None


@given(st.text(max_size=30))
def test_reading_an_amount_never_raises_nor_goes_out_of_range(text: str) -> None:
    """What is read fits numeric(18,6)."""
    amount = parse_amount(text)
    assert amount is None or 0 <= amount < 10**12
