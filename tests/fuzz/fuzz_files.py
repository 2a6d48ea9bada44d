"""What users bring: catalogs, tables to import, address lists, geo databases, questions to reports."""

import atexit
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from edge.datacentres import read_ranges
from edge.enrich import Enricher
from edge.errors import UserError
from edge.imports.click_rows import RowFault, find_columns, read_row
from edge.imports.exports import read_csv, read_json
from edge.imports.table_file import TableFile
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_file import CatalogFaults, read_catalog
from storage.postgres.reports.query import NotYours, QueryRefused
from storage.postgres.reports.query import parse_query as parse_report
from storage.postgres.reports.viewer import Viewer
from tests.fuzz.harness import as_text, target
from tests.wire.edge_state import CATALOG

FOLDER = Path(tempfile.mkdtemp(prefix="clickedge-fuzz-", dir=os.environ.get("FUZZ_FOLDER", "/var/tmp")))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TABLE = b"transaction_id,offer_id,affiliate_id,datetime,ip\nabc,17,2,2026-11-20 10:00:00,203.0.113.9\n"
ENRICHER = Enricher(FOLDER / "geo.mmdb", lambda: 0.0)


def write(data: bytes, name: str) -> Path:
    """A file of it."""
    path = FOLDER / name
    path.write_bytes(data)
    return path


@target(CATALOG.encode()[:900], b"[[offers]]\nid = 1\nadvertiser_id = 1\nname = 'x'\nurl = 'https://x.example/'\n", b"offers = 1")
def catalog_files(data: bytes) -> None:
    """A catalog, or all its faults."""
    try:
        read_catalog(data.decode("utf-8", "replace"), "fuzzed", Catalog.empty())
    except CatalogFaults:
        pass


@target(b"10.0.0.0/8\n# x\n1.1.1.1-1.1.1.9\n2001:db8::/32", b"::/0", b"9.9.9.9-1.1.1.1")
def address_lists(data: bytes) -> None:
    """Ranges, or ValueError."""
    try:
        ranges = read_ranges(as_text(data))
    except ValueError:
        return
    ranges.hold(bytes(16))


@target(TABLE, TABLE.replace(b",", b";"), b"\xef\xbb\xbf" + TABLE, TABLE.decode().encode("utf-16"), b'"a\n')
def tables(data: bytes) -> None:
    """Rows with their lines, or one UserError."""
    try:
        table = TableFile(write(data, "table.csv"))
    except UserError:
        return
    try:
        for row in table.rows():
            assert row.line > 0
    except UserError:
        pass
    finally:
        table.close()


@target(TABLE, TABLE * 3)
def click_files(data: bytes) -> None:
    """Clicks, faults of rows, or one UserError."""
    try:
        file = TableFile(write(data, "clicks.csv"))
    except UserError:
        return
    try:
        columns = find_columns(file.header, "csv", {})
        for row in file.rows():
            try:
                read_row(row.values, columns, UTC, "")
            except RowFault:
                continue
    except UserError:
        pass
    finally:
        file.close()


@target(b'{"data": [{"id": 1}]}', b"id,name\n1,x\n")
def exports(data: bytes) -> None:
    """Records, or one UserError."""
    path = write(data, "export")
    for read in (read_json, lambda path: list(read_csv(path))):
        try:
            read(path)
        except UserError:
            continue


@target(b"\xab\xcd\xefMaxMind.com" + bytes(40), bytes(300))
def geo_databases(data: bytes) -> None:
    """A damaged database knows no place, and harms nobody."""
    write(data, "geo.mmdb")
    ENRICHER.take(ENRICHER.look())
    ENRICHER._place.cache_clear()
    ENRICHER.place("203.0.113.9")


@target(b"dimensions=offer,day&metrics=clicks&from=2026-11-01&to=2026-11-20&sort=-clicks&limit=10&offer=17", b"cursor=abc&by=click")
def report_questions(data: bytes) -> None:
    """A report that can be run, or all that is wrong with it, for whoever asks."""
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in as_text(data).split("&"))]
    for viewer in (Viewer(), Viewer("advertiser", advertiser_id=1), Viewer("partner", aff_id=2)):
        try:
            parse_report(pairs, viewer, NOW)
        except (QueryRefused, NotYours):
            continue
