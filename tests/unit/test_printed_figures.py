"""Figures as `clickedge report` and `clickedge cohorts` print them."""

from decimal import Decimal
from types import SimpleNamespace
from typing import cast

import pytest

from edge.cli.cohorts import _cells
from edge.cli.report import _figure, _to_csv
from storage.postgres.cohorts import Window
from storage.postgres.reports.comparison import Figures
from storage.postgres.reports.report import Column, Report, Row


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


@pytest.mark.parametrize(
    ("now", "before", "change", "text"),
    [
        ("7.5", "5", "50.00", "7.50 (was 5.00, +50.0 %)"),
        ("7.5", "0", None, "7.50 (was 0.00)"),
        (None, "5", None, "- (was 5.00)"),
        ("7.5", None, None, "7.50 (was -)"),
        ("0", "1234.5", "-100.00", "0.00 (was 1,234.50, -100.0 %)"),
    ],
)
def test_beside_a_figure_stands_what_it_was(now: str | None, before: str | None, change: str | None, text: str) -> None:
    """And its change in percent, where that can be said."""
    figures: list[Figures] = [{"epc": None if one is None else Decimal(one)} for one in (now, before, change)]
    row = Row({}, *figures)
    assert _figure(row, "epc", "money") == text


def test_a_table_of_cells_has_what_they_were_too() -> None:
    """Two more columns for each figure, only where the report is compared."""
    row = Row({"offer": 17}, {"revenue": Decimal("7.5")}, {"revenue": Decimal(5)}, {"revenue": Decimal("50.00")})
    columns = {"dimensions": [Column("offer", "Offer", "id")], "metrics": [Column("revenue", "Revenue", "money")], "rows": [row]}
    compared, plain = (cast("Report", SimpleNamespace(**columns, previous_period=one)) for one in ("then", None))
    assert _to_csv(compared) == "Offer,Revenue,Revenue before,Revenue change %\n17,7.5,5,50.00\n"
    assert _to_csv(plain) == "Offer,Revenue\n17,7.5\n"
