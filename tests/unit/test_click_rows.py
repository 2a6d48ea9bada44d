"""edge/imports/click_rows.py and click_file.py: what a foreign export's columns and values mean here."""

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UserError
from edge.imports.click_file import Rejects
from edge.imports.click_rows import RowFault, find_columns, parse_time, read_row
from edge.imports.table_file import Row, TableFile

FIXTURES = Path(__file__).parents[1] / "fixtures" / "imports"
HEADER = ["click_id", "datetime", "offer_id", "aff_id", "ip", "colour"]
ROW = ["abc-1", "2026-11-20 10:15:00", "17", "2", "203.0.113.7", "red"]


def moment_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_tunes_report_is_read_by_its_field_names() -> None:
    """`Stat.ad_id` is the transaction id, `affiliate_info1` the first sub id; what is not known is named."""
    file = TableFile(FIXTURES / "tune_clicks.csv")
    columns = find_columns(file.header, "tune", {})
    assert columns.unused == ("Offer.name",)
    first = read_row(next(file.rows()).values, columns, UTC, "")
    file.close()
    assert (first.transaction_id, first.offer_id, first.aff_id) == ("102f3a7b9c1d2e3f405162738495a6", 17, 2)
    assert first.ms == moment_ms("2026-11-20T10:15:00+00:00")
    assert (first.ip, first.country, first.params) == ("203.0.113.77", "US", {"source": "newsletter", "aff_sub1": "spring"})
    assert "Chrome/126" in first.user_agent


def test_everflows_report_is_read_by_its_headings() -> None:
    """Semicolons, ids in brackets behind the name, Unix seconds with a fraction, `is_unique`."""
    file = TableFile(FIXTURES / "everflow_clicks.csv")
    columns = find_columns(file.header, "everflow", {})
    assert columns.unused == ("ISP Name",)
    first, second = (read_row(row.values, columns, UTC, "") for row in file.rows())
    file.close()
    assert (first.offer_id, first.aff_id, first.ms, first.is_duplicate) == (17, 2, 1_795_000_000_000, False)
    assert (second.ms, second.is_duplicate) == (1_795_000_000_250, True)
    assert first.params == {"source": "src", "aff_sub1": "s-1", "aff_sub2": "s-2"}


def test_a_column_is_what_the_user_says_it_is() -> None:
    """A mapping beats the guess; a parameter without a column of its own is kept as an extra one."""
    columns = find_columns([*HEADER, "real id"], "csv", {"real id": "transaction_id", "colour": "color"})
    click = read_row([*ROW, "xyz"], columns, UTC, "")
    assert (click.transaction_id, click.params) == ("xyz", {"color": "red"})


@pytest.mark.parametrize(
    ("header", "mapped", "told"),
    [
        (["click_id", "datetime", "offer_id"], {}, "no column for aff_id"),
        (["x"], {}, "no column for transaction_id, datetime, offer_id, aff_id"),
        (HEADER, {"color": "aff_sub"}, "no column 'color'"),
        (HEADER, {"colour": "not a name"}, "is no parameter's name"),
    ],
)
def test_a_file_without_the_needed_columns_is_refused_with_what_it_has(
    header: list[str], mapped: dict[str, str], told: str
) -> None:
    """Before anything is read."""
    with pytest.raises(UserError, match=told):
        find_columns(header, "csv", mapped)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, "", "transaction id is missing"),
        (0, "a b", "not plain ASCII"),
        (0, "x" * 65, "longer than 64"),
        (1, "", "no time"),
        (1, "11/20/2026 10:15", "--time-format"),
        (1, "2026-13-01", "cannot be read"),
        (1, "9" * 30, "cannot be read"),
        (2, "seventeen", "offer_id 'seventeen' is no id"),
        (2, "0", "is no id"),
        (3, "2.5", "aff_id '2.5' is no id"),
        (4, "203.0.113.999", "is no address"),
        (5, "x" * 5000, "longer than 4096"),
    ],
)
def test_a_row_that_cannot_be_taken_over_says_why(place: int, value: str, told: str) -> None:
    """Each of its values is checked before anything is stored."""
    columns = find_columns(HEADER, "csv", {"colour": "color"})
    row = [*ROW[:place], value, *ROW[place + 1 :]]
    with pytest.raises(RowFault, match=told):
        read_row(row, columns, UTC, "")


@pytest.mark.parametrize(
    ("text", "zone", "time_format", "expected"),
    [
        ("2026-11-20T10:15:00Z", "Europe/Berlin", "", "2026-11-20T10:15:00+00:00"),
        ("2026-11-20 10:15:00", "Europe/Berlin", "", "2026-11-20T09:15:00+00:00"),
        ("2026-07-20 10:15:00.123", "Europe/Berlin", "", "2026-07-20T08:15:00.123+00:00"),
        ("2026-11-20 10:15:00 UTC", "Europe/Berlin", "", "2026-11-20T10:15:00+00:00"),
        ("1795169700", "Europe/Berlin", "", "2026-11-20T10:15:00+00:00"),
        ("1795169700123", "Europe/Berlin", "", "2026-11-20T10:15:00.123+00:00"),
        ("11/20/2026 05:15:00 AM", "America/New_York", "%m/%d/%Y %I:%M:%S %p", "2026-11-20T10:15:00+00:00"),
    ],
)
def test_a_time_is_read_in_its_own_zone_or_the_files(text: str, zone: str, time_format: str, expected: str) -> None:
    """To the millisecond; summer time is the zone's."""
    assert parse_time(text, ZoneInfo(zone), time_format) == round(datetime.fromisoformat(expected).timestamp() * 1000)


@given(st.lists(st.text(max_size=40), min_size=0, max_size=8))
def test_no_row_makes_it_fail(row: list[str]) -> None:
    """Whatever stands in a file, a row is a click or has a fault."""
    columns = find_columns(HEADER, "csv", {})
    try:
        click = read_row(row, columns, UTC, "")
    except RowFault:
        return
    assert 1 <= len(click.transaction_id) <= 64


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16", "gzip"])
def test_a_file_is_read_in_the_forms_that_exports_come_in(tmp_path: Path, form: str) -> None:
    """With a byte order mark, from a spreadsheet, packed; lines and quoted line breaks as CSV has them."""
    text = 'click_id\tnote\r\n1\t"two\r\nlines"\r\n\r\n2\tü\r\n'
    path = tmp_path / "clicks.csv"
    path.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode(form))
    file = TableFile(path)
    assert file.header == ["click_id", "note"]
    assert [(row.line, row.values) for row in file.rows()] == [(2, ["1", "two\r\nlines"]), (5, ["2", "ü"])]
    assert file.read_bytes == file.size_bytes
    file.close()


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "is empty"), (b'{"clicks": []}', "is JSON"), (b"\x1f\x8bnot packed", "cannot read")]
)
def test_a_file_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes, told: str) -> None:
    """Empty, JSON, or damaged."""
    path = tmp_path / "clicks.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        TableFile(path)
    with pytest.raises(UserError, match="cannot read"):
        TableFile(tmp_path / "missing.csv")


def test_a_field_that_never_ends_costs_its_row_only(tmp_path: Path) -> None:
    """A lost quotation mark is reported with its line."""
    path = tmp_path / "clicks.csv"
    path.write_text("a,b\n1," + "x" * (2**20 + 10) + "\n2,fine\n")
    file = TableFile(path)
    faults = [(row.line, bool(row.fault), row.values) for row in file.rows()]
    file.close()
    assert faults[0][:2] == (2, True)
    assert faults[-1] == (3, False, ["2", "fine"])


def test_rejects_are_kept_as_they_were_with_line_and_reason(tmp_path: Path) -> None:
    """One file a run, made with the first of them; an earlier run's goes."""
    path = tmp_path / "clicks.csv"
    stale = tmp_path / "clicks.csv.rejects.csv"
    stale.write_text("old")
    with Rejects(path, ["a", "b"]) as rejects:
        assert not stale.exists()
        rejects.add(Row(7, ["1", "x,y"]), "its ip is no address")
    with stale.open(newline="") as file:
        assert list(csv.reader(file)) == [["line", "reason", "a", "b"], ["7", "its ip is no address", "1", "x,y"]]
