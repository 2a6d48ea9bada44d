"""Figures as `clickedge report` and `clickedge cohorts` print them."""

from decimal import Decimal

import pytest

from edge.cli.cohorts import _cells
from edge.cli.report import _figure
from storage.postgres.cohorts import Window
from storage.postgres.reports.report import Row


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("0.004200", "money", "0.0042"),
        ("1234.500000", "money", "1,234.50"),
        ("-0.004200", "money", "-0.0042"),
        ("0.000000", "money", "0.00"),
        ("0.125000", "money", "0.125"),
        ("4.000000", "percent", "4.00 %"),
        ("1.256000", "ratio", "1.26"),
    ],
)
def test_what_a_click_earns_is_not_rounded_away(value: str, kind: str, text: str) -> None:
    """Money has up to four decimals where they say something, as in the console: an EPC of 0.0042 is not 0.00."""
    assert _figure(Row({}, {"epc": Decimal(value)}), "epc", kind) == text


def test_nor_is_what_a_contact_brought() -> None:
    """A hundred thousand contacts may bring a few cents each."""
    assert _cells(Window(7, False, 3, 3, Decimal("421.5"), Decimal("0.004215"))) == ("421.50 *", "0.0042 *")
