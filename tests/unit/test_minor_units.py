"""Money rounded to what a currency can be paid in."""

from decimal import Decimal

import pytest

from edge.exports.cells import defuse
from edge.tracking.minor_units import round_to_unit


@pytest.mark.parametrize(
    ("value", "currency", "rounded"),
    [
        ("1.005", "USD", "1.00"),
        ("1.015", "USD", "1.02"),
        ("1.0150001", "USD", "1.02"),
        ("-1.005", "EUR", "-1.00"),
        ("-0.004", "EUR", "0.00"),
        ("10.5", "JPY", "10"),
        ("11.5", "jpy", "12"),
        ("1.0005", "KWD", "1.000"),
        ("5", "XYZ", "5.00"),
        ("123456789012345678.125", "USD", "123456789012345678.12"),
    ],
)
def test_money_is_rounded_half_even_to_its_smallest_unit(value: str, currency: str, rounded: str) -> None:
    """With all of its decimals, and no sign on a zero; an unknown currency has cents."""
    assert str(round_to_unit(Decimal(value), currency)) == rounded


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\r=1", "\n=1", "\uff1d1"])
def test_a_text_that_would_be_calculated_gets_an_apostrophe(text: str) -> None:
    """Every beginning that a spreadsheet takes for one."""
    assert defuse(text) == f"'{text}"
    assert defuse(f"a{text}") == f"a{text}"
    assert defuse("") == ""
