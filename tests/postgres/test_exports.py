"""Exports of real rows: exact in every form, only what the viewer may see, whole or not there at all."""

import asyncio
import csv
import io
import json
import resource
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge.errors import UserError
from edge.exports.asking import Format, Shape, parse_selection, take_shape
from edge.exports.running import export_table
from edge.exports.whole_files import write_whole
from storage.postgres.connection import Connection, connect
from storage.postgres.exports.selecting import Selection
from storage.postgres.exports.tables import TABLES
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.query import NotYours, QueryRefused
from storage.postgres.reports.viewer import ADMIN, Viewer
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.drains import CATALOG, Bench, open_bench

NOW = datetime.now(UTC)
DAYS = [("from", f"{NOW - timedelta(days=1):%Y-%m-%d}"), ("to", f"{NOW + timedelta(days=1):%Y-%m-%d}")]
FORMATS: tuple[Format, ...] = get_args(Format)
NASTY = 'a,"b"\nröd 🎈 =1'
OTHER = CATALOG + """
[[advertisers]]
id = 3
name = "Third"
[[offers]]
id = 40
advertiser_id = 3
name = "Other"
url = "https://x.example/"
payout = "0.333333"
revenue = "999999.999999"
currency = "EUR"
"""


@pytest.fixture(scope="module")
def filled(embedded_server: Server, short_directory: Path) -> Iterator[str]:
    """A database with clicks and conversions of two partners and two advertisers."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        asyncio.run(_fill(short_directory / "exports", url))
        yield url


async def _fill(data_dir: Path, url: str) -> None:
    async with open_bench(data_dir, url, OTHER) as bench:
        scribe = bench.scribe()
        for number in range(20):
            params = {"aff_sub1": NASTY, "aff_sub2": "=2+3", "list": "news", "odd": "é", "cost": "0.000001"}
            click_id = scribe.click(offer_id=17 if number % 4 else 40, aff_id=2 + number % 2, params=params)
            scribe.convert(click_id, amount="12345.678901", adv_sub1="-order", via="postback")
        scribe.impression()
        await bench.drain()
        await _store_the_rest(bench)


async def _store_the_rest(bench: Bench) -> None:
    await bench.conn.execute(
        "INSERT INTO costs (day, offer_id, list, currency, amount, sends) VALUES (current_date, 17, 'news', 'USD', 1.5, 100)"
    )
    await bench.conn.execute(
        "INSERT INTO contacts (contact_id, list, signed_up_at, extras) VALUES ('c1', 'news', now(), '{\"a\": 1}'), ('c2', 'x', now(), '{}')"
    )


@pytest.fixture
async def conn(filled: str) -> AsyncIterator[Connection]:
    """A connection to it."""
    opened = await connect(filled)
    yield opened
    await opened.close()


async def export(
    conn: Connection,
    what: str,
    *parameters: tuple[str, str],
    shape: Shape = Shape(),  # noqa: B008 - never changed
    viewer: Viewer = ADMIN,
) -> bytes:
    """The file that these parameters give."""
    parts: list[bytes] = []

    async def write(data: bytes) -> None:
        parts.append(data)

    selection = parse_selection(TABLES[what], [*DAYS, *parameters], viewer, NOW, "UTC")
    rows = await export_table(conn, selection, shape, write)
    data = b"".join(parts)
    assert rows == len(read(data, shape.format))
    return data


def read(data: bytes, form: Format) -> list[dict[str, Any]]:
    """The rows of a file, read by somebody else's reader."""
    if form == "csv":
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    if form == "ndjson":
        return [json.loads(line, parse_float=Decimal) for line in data.splitlines()]
    return list(pq.read_table(pa.BufferReader(data)).to_pylist())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", sorted(TABLES))
async def test_every_table_comes_out_whole_and_exact(conn: Connection, what: str, form: Format) -> None:
    """All rows in all columns; ids, money and times as the database has them."""
    rows = read(await export(conn, what, shape=Shape(form)), form)
    table = "conversion_changes" if what == "changes" else what
    assert len(rows) == await conn.fetchval(f"SELECT count(*) FROM {table}") > 0
    assert set(rows[0]) == {field.name for field in TABLES[what].fields}
    if what == "conversions":
        stored = await conn.fetch("SELECT * FROM conversions ORDER BY received_at, conversion_id")
        assert [row["conversion_id"] for row in rows] == [row["conversion_id"].hex for row in stored]
        for name in ("amount", "payout", "revenue"):
            assert [Decimal(row[name]) for row in rows] == [row[name] for row in stored]
        times = [row["converted_at"] for row in rows]
        read_times = [one if isinstance(one, datetime) else datetime.fromisoformat(one) for one in times]
        assert read_times == [row["converted_at"] for row in stored]
    if what == "clicks":
        assert {row["aff_sub1"] for row in rows} == {NASTY}
        extras = rows[0]["extras"]
        assert (extras if isinstance(extras, dict) else json.loads(extras)) == {"list": "news", "odd": "é"}


async def test_a_parquet_file_says_what_its_columns_are(conn: Connection) -> None:
    """Money exact, times in UTC, several texts as a list."""
    schema = pq.read_schema(pa.BufferReader(await export(conn, "clicks", shape=Shape("parquet"))))
    assert schema.field("payout").type == pa.decimal128(18, 6)
    assert schema.field("clicked_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("flags").type == pa.list_(pa.string())
    assert schema.field("offer_id").type == pa.int32()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ["clicks", "conversions", "impressions", "changes"])
@pytest.mark.parametrize(
    ("viewer", "own", "hidden"),
    [
        (Viewer("partner", 0, 2), ("aff_id", 2), {"revenue", "revenue_delta", "ip", "cost", "visitor", "actor", "adv_sub1"}),
        (Viewer("advertiser", 3, 0), ("offer_id", 40), {"payout", "payout_delta", "ip", "cost", "visitor", "actor", "tier"}),
    ],
    ids=["partner", "advertiser"],
)
async def test_a_partner_and_an_advertiser_get_their_own_rows_and_columns(
    conn: Connection, what: str, form: Format, viewer: Viewer, own: tuple[str, int], hidden: set[str]
) -> None:
    """Nobody else's, whatever they filter by; and no column with what is not theirs to know, asked for or not."""
    column, value = own
    rows = read(await export(conn, what, shape=Shape(form), viewer=viewer), form)
    assert {int(row[column]) for row in rows} <= {value}
    assert rows or what == "impressions"
    assert not hidden & set(rows[0] if rows else ())
    theirs = ("partner", "3") if column == "aff_id" else ("offer", "17")
    if column == "aff_id":
        with pytest.raises(NotYours):
            await export(conn, what, theirs, viewer=viewer)
    else:
        assert read(await export(conn, what, theirs, shape=Shape(form), viewer=viewer), form) == []
    for name in hidden & {field.name for field in TABLES[what].fields}:
        with pytest.raises(QueryRefused, match=f"columns: {what} has no '{name}'"):
            await export(conn, what, ("columns", name), viewer=viewer)


async def test_filters_and_columns_are_those_of_reports(conn: Connection) -> None:
    """Several values, an extra, none; columns in the order asked for."""
    data = await export(conn, "clicks", ("offer", "40"), ("partner", "2"), ("partner", "3"), ("columns", "aff_id, offer_id"))
    assert data.splitlines()[0] == b"aff_id,offer_id"
    assert set(data.splitlines()[1:]) == {b"2,40"}
    assert len(read(await export(conn, "clicks", ("extra.odd", "é")), "csv")) == 20
    assert len(read(await export(conn, "clicks", ("country", ""), ("list", "news")), "csv")) == 20
    assert len(read(await export(conn, "conversions", ("advertiser", "3"), ("by", "click")), "csv")) == 5
    assert len(read(await export(conn, "contacts", ("list", "x")), "csv")) == 1


SAMPLES = {"id": "999", "text": "nothing", "date": "2026-10-01", "week": "2026-10-05", "month": "2026-10", "hour": "2026-10-01T12:00:00Z"}


@pytest.mark.parametrize("what", sorted(TABLES))
async def test_a_table_can_be_filtered_by_each_of_its_dimensions(conn: Connection, what: str) -> None:
    """The database takes every one of them, times too."""
    known = [name for name, one in DIMENSIONS.items() if TABLES[what].source.has(one)]
    assert {"date", "hour", "week", "month"} < set(known)
    for name in known:
        assert len(read(await export(conn, what, (name, SAMPLES[DIMENSIONS[name].kind])), "csv")) == 0


async def test_changes_add_up_to_the_reports_figures(conn: Connection) -> None:
    """What `changes` holds of a time is what the roll-ups have of it."""
    rows = read(await export(conn, "changes", shape=Shape("ndjson")), "ndjson")
    stored = await conn.fetchrow("SELECT sum(payout) AS payout, sum(conversions) AS conversions FROM stats_hourly")
    assert sum(row["payout_delta"] for row in rows) == stored["payout"]
    assert sum(row["conversions_delta"] for row in rows) == stored["conversions"]


async def test_progress_is_told_in_rows(conn: Connection) -> None:
    """How many so far, and about how many there will be."""
    told: list[tuple[int, int]] = []

    async def write(data: bytes) -> None:
        """Nobody reads it."""

    selection = parse_selection(TABLES["clicks"], DAYS, ADMIN, NOW, "UTC")
    await export_table(conn, selection, Shape(), write, lambda rows, expected: told.append((rows, expected)))
    assert told[-1][0] == 20
    assert told[-1][1] > 0


async def test_for_spreadsheets_nothing_is_calculated(conn: Connection) -> None:
    """Only where it is asked for, only in texts: a negative number stays one."""
    shape = Shape("csv", for_spreadsheets=True)
    clicks = read(await export(conn, "clicks", shape=shape), "csv")
    assert {(row["aff_sub1"], row["aff_sub2"]) for row in clicks} == {(NASTY, "'=2+3")}
    conversions = read(await export(conn, "conversions", shape=shape), "csv")
    assert {row["adv_sub1"] for row in conversions} == {"'-order"}
    plain = read(await export(conn, "conversions"), "csv")
    assert {row["adv_sub1"] for row in plain} == {"-order"}


@pytest.mark.parametrize(
    ("what", "parameters", "said"),
    [
        ("clicks", [], "from: is required"),
        ("clicks", [("from", "yesterday")], "from: 'yesterday' is no date"),
        ("clicks", [*DAYS, ("offer", "1; DROP TABLE clicks")], "offer: '1; DROP TABLE clicks' is no id"),
        ("clicks", [*DAYS, ("columns", 'ip", (SELECT 1) AS "x')], "columns: clicks has no"),
        ("clicks", [*DAYS, ("no_such", "1")], "no_such: there is no such parameter"),
        ("clicks", [*DAYS, ("metrics", "epc")], "metrics: is of reports only"),
        ("costs", [*DAYS, ("country", "US")], "country: costs cannot be filtered by it"),
    ],
)
def test_what_cannot_be_exported_is_said(what: str, parameters: Sequence[tuple[str, str]], said: str) -> None:
    """With the parameter at fault, before anything is read."""
    with pytest.raises(QueryRefused, match=said.replace("(", r"\(")):
        parse_selection(TABLES[what], parameters, ADMIN, NOW, "UTC")


def test_the_shape_is_checked_like_the_rest() -> None:
    """Every fault at once, with its name."""
    assert take_shape([("format", "parquet"), ("offer", "1")]) == (Shape("parquet"), [("offer", "1")])
    with pytest.raises(QueryRefused, match="'xlsx' is none of csv, ndjson, parquet; for_spreadsheets: is neither"):
        take_shape([("format", "xlsx"), ("for_spreadsheets", "maybe")])


async def test_a_file_is_there_whole_or_not_at_all(conn: Connection, tmp_path: Path) -> None:
    """Cut in the middle, the old file stays and no other is left; the connection can be used again."""
    path = tmp_path / "deep" / "clicks.csv"
    path.parent.mkdir()
    path.write_text("old")
    selection = parse_selection(TABLES["clicks"], DAYS, ADMIN, NOW, "UTC")
    for form in FORMATS:
        with pytest.raises(RuntimeError, match="cut"):
            await _export_until_cut(conn, path, selection, form)
        assert [one.name for one in path.parent.iterdir()] == ["clicks.csv"]
        assert path.read_text() == "old"
    assert await conn.fetchval("SELECT 1") == 1
    with write_whole(path) as sink:
        sink.write(b"new")
    assert path.read_text() == "new"


async def _export_until_cut(conn: Connection, path: Path, selection: Selection, form: Format) -> None:
    with write_whole(path) as sink:

        async def write(data: bytes) -> None:
            sink.write(data)
            if sink.written_bytes > 3:
                raise RuntimeError("cut")

        await export_table(conn, selection, Shape(form), write)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    """And nothing is left behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*clicks.csv: File too large"), write_whole(
            tmp_path / "clicks.csv"
        ) as sink:
            sink.write(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
