"""Amounts, dates, columns and files of imports: what is read, and what is refused because it could mean two things."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge.errors import UserError
from edge.imports.columns import find_columns, guess_vendor
from edge.imports.cost_rows import feed_of
from edge.imports.table_file import MAX_COLUMNS, TableFile
from edge.imports.values import Calendar, ValueFault, find_order, parse_money, parse_when

BERLIN = Calendar(ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("12", "12", ""), ("12.50", "12.5", ""), ("0.125", "0.125", ""), (".5", "0.5", ""), ("12.500000", "12.5", ""),
        ("1,234.56", "1234.56", ""), ("1.234,56", "1234.56", ""), ("1,234,567", "1234567", ""), ("12,5", "12.5", ""),
        ("$12.50", "12.5", ""), ("12,50 €", "12.5", ""), ("USD 5", "5", "USD"), ("1.234,5 eur", "1234.5", "EUR"),
        ("1 234,56", "1234.56", ""), ("1'234.50", "1234.5", ""), ("1\u00a0234,5", "1234.5", ""), ("+3", "3", ""),
    ],
)  # fmt: skip
def test_amounts_are_read_as_people_write_them(text: str, amount: str, currency: str) -> None:
    """Separators of thousands, both decimal marks, signs and codes of currencies."""
    assert parse_money(text) == (Decimal(amount), currency)


@pytest.mark.parametrize(
    "text",
    [
        "1,234",
        "1.234",
        "-5",
        "(5)",
        "abc",
        "1,2,3",
        "1.2.3,4",
        "NaN",
        "1e5",
        "",
        "1234567890123",
        "1.1234567",
        "٣",
        "1" * 99,
    ],
)
def test_what_is_no_amount_or_could_be_two_is_refused(text: str) -> None:
    """Never guessed."""
    with pytest.raises(ValueFault):
        parse_money(text)


def test_the_decimal_mark_can_be_said() -> None:
    """Then what could be either is one of both."""
    assert (parse_money("1,234", ",").value, parse_money("1,234", ".").value) == (Decimal("1.234"), Decimal(1234))
    with pytest.raises(ValueFault):
        parse_money("1.23", ",")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-22 10:00:00", "2026-11-22T09:00:00"), ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00"),
        ("2026-11-22T10:00:00.5-05:00", "2026-11-22T15:00:00.500"), ("2026-11-22", "2026-11-21T23:00:00"),
        ("2026-11-22 10:00:00 +0100", "2026-11-22T09:00:00"), ("2026/11/22 10:00 UTC", "2026-11-22T10:00:00"),
        ("22.11.2026", "2026-11-21T23:00:00"), ("13/01/2026 1:30 PM", "2026-01-13T12:30:00"),
        ("1/13/2026 12:05 am", "2026-01-12T23:05:00"), ("Nov 22, 2026", "2026-11-21T23:00:00"),
        ("Sun, 22 Nov 2026 10:00:00 +0000", "2026-11-22T10:00:00"), ("1763800000", "2025-11-22T08:26:40"),
        ("1763800000123", "2025-11-22T08:26:40.123"),
    ],
)  # fmt: skip
def test_dates_are_read_as_reports_write_them(text: str, utc: str) -> None:
    """In the file's zone, unless they name one."""
    moment = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert parse_when(text, BERLIN).from_ms == round(moment.timestamp() * 1000)
    assert parse_when(text, BERLIN).is_day == (len(text) <= 12 and not text.isdigit())


@pytest.mark.parametrize(
    "text", ["01/02/2026", "yesterday", "2026-13-01", "99/99/2026", "", "11/22/26", "0000-00-00", "1" * 99]
)
def test_dates_that_could_be_two_are_refused(text: str) -> None:
    """The message names the option."""
    with pytest.raises(ValueFault, match="--date-format" if text else "no date"):
        parse_when(text, BERLIN)


def test_a_file_shows_whether_day_or_month_comes_first() -> None:
    """By a date that can be read in one way only; where two disagree, nothing is guessed."""
    assert find_order(["01/02/2026", "13/02/2026"]) == "dmy"
    assert find_order(["01/02/2026", "02/13/2026"]) == "mdy"
    assert find_order(["01/02/2026", "2026-01-01"]) == ""
    with pytest.raises(ValueFault, match="--date-format"):
        find_order(["13/02/2026", "02/13/2026"])


@pytest.mark.parametrize(
    ("header", "vendor", "columns"),
    [
        ("click_id,amount,date", "csv", {"transaction_id": "click_id", "amount": "amount", "datetime": "date"}),
        (
            "Stat.id,Stat.ad_id,Stat.datetime,Stat.session_datetime,Stat.sale_amount,Stat.payout,Stat.conversion_status",
            "tune",
            {"conversion_unique_id": "Stat.id", "transaction_id": "Stat.ad_id", "datetime": "Stat.datetime",
             "amount": "Stat.sale_amount", "payout": "Stat.payout", "status": "Stat.conversion_status"},
        ),
        (
            "conversion_id,transaction_id,conversion_unix_timestamp,click_unix_timestamp,sale_amount,status,order_id,event",
            "everflow",
            {"conversion_unique_id": "conversion_id", "transaction_id": "transaction_id", "adv_unique1": "order_id",
             "datetime": "conversion_unix_timestamp", "amount": "sale_amount", "status": "status", "goal_name": "event"},
        ),
        (
            "Campaign,Action Id,Action Tracker,Event Date,State,Sale Amount,Payout,Currency,Oid,SubId1,SharedId",
            "impact",
            {"conversion_unique_id": "Action Id", "datetime": "Event Date", "status": "State", "amount": "Sale Amount",
             "payout": "Payout", "currency": "Currency", "adv_unique1": "Oid"},
        ),
    ],
)  # fmt: skip
def test_each_vendors_columns_are_known(header: str, vendor: str, columns: dict[str, str]) -> None:
    """By the names in its reports; what is left over is told."""
    names = header.split(",")
    assert guess_vendor(names) == vendor
    assert find_columns("conversions", names, {}, {}).described() == columns


def test_columns_can_be_said_and_unsaid() -> None:
    """`--map` beats the guess, an empty one takes a column away; a column that is not there is named with those that are."""
    names = ["click_id", "Betrag", "date", "goal_id"]
    found = find_columns("conversions", names, {"amount": "betrag", "goal_id": ""}, {"currency": "EUR"})
    assert found.described() == {
        "amount": "Betrag", "transaction_id": "click_id", "datetime": "date", "currency": "always EUR",
    }  # fmt: skip
    with pytest.raises(UserError, match="no column 'Preis'; it has click_id, Betrag"):
        find_columns("conversions", names, {"amount": "Preis"}, {})
    with pytest.raises(UserError, match="is the header missing"):
        find_columns("conversions", ["0192f0c1", "12.50", "2026-11-01"], {}, {})
    with pytest.raises(UserError, match="is no field of costs"):
        find_columns("costs", ["day", "amount"], {"betrag": "amount"}, {})


@pytest.mark.parametrize(
    ("name", "feed"),
    [
        ("facebook-2026-11-01.csv", "facebook"), ("Mail costs 20261101-20261130 (2).csv.gz", "Mail-costs"),
        ("2026-11.csv", "costs"), ("sends_01.11.2026.csv.rejects.csv", "sends"),
    ],
)  # fmt: skip
def test_a_feed_is_the_files_name_without_its_dates(name: str, feed: str) -> None:
    """So that next week's file is of the same feed."""
    assert feed_of(name) == feed


def read(tmp_path: Path, data: bytes) -> tuple[list[str], list[tuple[int, list[str], str]]]:
    path = tmp_path / "table"
    path.write_bytes(data)
    file = TableFile(path)
    try:
        return file.header, [tuple(row) for row in file.rows()]  # type: ignore[misc]
    finally:
        file.close()


TEXT = 'Name;Größe\r\nMüller;1,5\r\n\r\n"a;""b""\r\nc";2\r\n'
ROWS = [(2, ["Müller", "1,5"], ""), (4, ['a;"b"\r\nc', "2"], "")]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("latin-1"),
        lambda text: text.encode("cp1252"),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text.encode("latin-1")),
        lambda text: ("sep=;\r\n" + text).encode(),
        lambda text: ("\r\n;\r\n" + text).encode().replace(b"M", b"M\0"),
    ],
)
def test_every_encoding_gives_the_same_rows(encode: Callable[[str], bytes], tmp_path: Path) -> None:
    """With and without a mark, packed, with a spreadsheet's first line, with NULs; line numbers are the file's."""
    data = encode(TEXT)
    header, rows = read(tmp_path, data)
    assert header == ["Name", "Größe"]
    assert [row[1:] for row in rows] == [row[1:] for row in ROWS]
    if not data.startswith((b"sep", b"\r\n")):
        assert rows == ROWS


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"), (b"\n\n;;\n", "is empty"), (b"PK\x03\x04...", "an Excel workbook or a zip archive"),
        (b'{"data": []}', "is JSON"), (b"<html>", "a web page"), (b"%PDF-1.7", "a PDF"), (b"a" * 300_000, "its header is longer"),
        (b"a," * (MAX_COLUMNS + 1) + b"\n", f"at most {MAX_COLUMNS}"), (b"\x1f\x8b\x08\x00broken", "cannot read"),
        (b'a,"b\n', "its header is no CSV"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_told_in_a_line(data: bytes, said: str, tmp_path: Path) -> None:
    """With what to do instead, where there is something."""
    with pytest.raises(UserError, match=said):
        read(tmp_path, data)


def test_rows_that_cannot_be_split_are_refused_one_by_one(tmp_path: Path) -> None:
    """A line without end, a quotation mark in the middle or never closed: those after it are read."""
    data = b'a,b\n1,"x"y\n2,' + b"z" * 300_000 + b'\n3,ok\n4,"never closed\n'
    _, rows = read(tmp_path, data)
    assert [(row[0], row[1] == ["3", "ok"]) for row in rows] == [(2, False), (3, False), (4, True), (5, False)]
    assert ["quotation marks" in rows[0][2], "longer than" in rows[1][2], rows[2][2], "quotation" in rows[3][2]] == [
        True, True, "", True,
    ]  # fmt: skip


def test_a_value_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    """Such as the terms of an offer, in one line or in several."""
    for text in ("x" * 200_000, "x\n" * 200_000):
        assert read(tmp_path, f'a,b\n1,"{text}"\n'.encode())[1] == [(2, ["1", text], "")]


@pytest.mark.parametrize(("before", "after"), [(0, 300), (3, 30_000), (1, 1)])
def test_a_quotation_mark_that_is_not_closed_costs_its_own_line_only(before: int, after: int, tmp_path: Path) -> None:
    """However many lines follow, without another mark or with one in the next line: all of them are read."""
    good = [f"{n},some shop" for n in range(before + after)]
    good[-1] = f'{before + after - 1},"some shop"'
    lines = ["a,b", *good[:before], 'x,"Best shop', *good[before:]]
    _, rows = read(tmp_path, "\n".join(lines).encode())
    assert [row[:2] for row in rows if row[2]] == [(before + 2, ['x,"Best shop\n'])]
    numbers = [n for n in range(2, before + after + 3) if n != before + 2]
    assert [row[:2] for row in rows if not row[2]] == [
        (number, [str(place), "some shop"]) for place, number in enumerate(numbers)
    ]


def test_a_packed_file_that_breaks_off_is_told_with_its_line(tmp_path: Path) -> None:
    """Rows before that are read."""
    packed = gzip.compress(b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(100_000)))
    with pytest.raises(UserError, match=r"line \d+: the file is damaged here"):
        read(tmp_path, packed[: len(packed) // 2])


@pytest.mark.parametrize("place", [10, 200, 20_000])
def test_a_packed_file_with_a_damaged_byte_is_refused_in_one_line(place: int, tmp_path: Path) -> None:
    """At its first block or later."""
    packed = bytearray(gzip.compress(b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(100_000))))
    packed[place : place + 8] = b"\xff" * 8
    with pytest.raises(UserError, match=r"damaged here|cannot read"):
        read(tmp_path, bytes(packed))
