"""`clickedge import clicks`: the open clicks of another tracker, so that their postbacks find them here."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import click
import msgspec

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.drain.importing import ClickImporter, Imported
from edge.errors import UserError
from edge.imports.click_file import Rejects
from edge.imports.click_rows import Columns, ForeignClick, RowFault, Vendor, find_columns, read_row
from edge.imports.table_file import Row, TableFile
from edge.node import claim_lease, with_secrets
from edge.settings import Settings, load_settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds
from storage.postgres.audit import Entry
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, resolve_url

BATCH_ROWS = 2000
_HINT = "import the catalog first (clickedge import catalog, clickedge apply)"


class Plan(NamedTuple):
    """What the user asked for."""

    vendor: Vendor
    mapped: dict[str, str]
    zone: tzinfo
    time_format: str
    dry_run: bool


class Report(msgspec.Struct):
    """What became of the rows."""

    stored: int = 0
    known: int = 0
    rejected: int = 0
    unused: tuple[str, ...] = ()
    rejects: str = ""


class Progress(Protocol):
    """Called with the bytes read and the report so far."""

    def __call__(self, read_bytes: int, report: Report, /) -> None: ...


@click.command(name="clicks")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "vendor", type=click.Choice(["tune", "everflow", "csv"]), required=True, help="Whose export it is.")
@click.option("--map", "mapped", multiple=True, metavar="COLUMN=FIELD", help="What a column is, where it is not guessed.")
@click.option("--timezone", default="UTC", show_default=True, help="Of times that name none.")
@click.option("--time-format", default="", help="Of times that are neither ISO 8601 nor Unix time: %m/%d/%Y %H:%M:%S.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, store nothing.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML, as for serve.")
@database_options
def import_clicks(
    file: Path,
    vendor: Vendor,
    mapped: tuple[str, ...],
    timezone: str,
    time_format: str,
    dry_run: bool,
    config: Path | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Take over the clicks in FILE (CSV, plain or gzipped), whose ids are another tracker's.

    Postbacks with those ids then find their click. Run again, what is there already is skipped. Rows that cannot be taken
    over are written to FILE.rejects.csv with the reason; then the exit code is 1.
    """
    plan = Plan(vendor, dict(map(_split, mapped)), _zone(timezone), time_format, dry_run)
    settings = load_settings(os.environ, config, {"data_dir": data_dir, "database_url": database})
    url = resolve_url(settings.database_url, settings.data_path)
    settings = with_secrets(settings)
    with _progress(file) as progress:
        report = run_connected(url, "import", lambda conn: _import(conn, url, settings, file, plan, progress), written=_entry)
    for line in describe(report, dry_run=dry_run):
        click.echo(line)
    if report.rejected:
        raise SystemExit(1)


def _entry(report: Report) -> Entry | None:
    return Entry(user(), "import clicks", "", {"stored": report.stored}) if report.stored else None


def describe(report: Report, *, dry_run: bool) -> Iterator[str]:
    """The lines that tell what happened."""
    if report.unused:
        yield f"columns left out: {', '.join(report.unused)} (--map COLUMN=FIELD keeps one)"
    verb = "would be imported" if dry_run else "imported"
    yield f"{report.stored} clicks {verb}, {report.known} known already, {report.rejected} rejected"
    if report.rejected:
        yield f"rejected rows, with the reason: {report.rejects}"


async def _import(
    conn: Connection, url: str, settings: Settings, path: Path, plan: Plan, progress: Progress
) -> Report:
    await claim_lease(settings, url)
    revision, items = await load_current(conn)
    catalog = Catalog.empty().changed(revision, items)
    importer = ClickImporter(settings, catalog, plan.vendor)
    file = TableFile(path)
    try:
        columns = find_columns(file.header, plan.vendor, plan.mapped)
        check = _Check(settings, catalog)
        with Rejects(path, file.header) as rejects:
            report = Report(unused=columns.unused, rejects=str(rejects.path))
            for batch in _batches(_readable(file.rows(), columns, plan, check, rejects)):
                done = await (importer.count(conn, batch) if plan.dry_run else importer.store(conn, batch))
                _add(report, done, rejects)
                progress(file.read_bytes, report)
            report.rejected = rejects.count
    finally:
        file.close()
    return report


def _add(report: Report, done: Imported, rejects: Rejects) -> None:
    report.stored += done.stored
    report.known += done.known
    report.rejected = rejects.count


class _Check:
    """What the row itself cannot know: the catalog, the clock, our own ids."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._catalog = catalog
        self._now_ms = time.time_ns() // 1_000_000
        self._oldest_ms = self._now_ms - settings.click_retention_s * 1000
        self._ids = ClickIds(settings.secrets, settings.node_id, 63, _NoLease())

    def fault(self, one: ForeignClick) -> str:
        """Why the click cannot be taken over; "" for nothing."""
        if self._catalog.offer(one.offer_id) is None:
            return f"the catalog has no offer {one.offer_id}: {_HINT}"
        if self._catalog.partner(one.aff_id) is None:
            return f"the catalog has no partner {one.aff_id}: {_HINT}"
        if one.ms < self._oldest_ms:
            return f"its time, {_show(one.ms)}, is older than EDGE_CLICK_RETENTION"
        if one.ms > self._now_ms:
            return f"its time, {_show(one.ms)}, is in the future: is --timezone right?"
        if self._ids.parse(one.transaction_id) is not None:
            return "its transaction id was minted by ClickEdge itself"
        return ""


class _NoLease:
    """For ids that are only verified."""

    start_ms = 0
    through_ms = 0

    def cover(self, ms: int) -> None:
        raise RuntimeError("nothing is minted here")


def _readable(
    rows: Iterable[Row], columns: Columns, plan: Plan, check: _Check, rejects: Rejects
) -> Iterator[ForeignClick]:
    for row in rows:
        try:
            if row.fault:
                raise RowFault(row.fault)
            one = read_row(row.values, columns, plan.zone, plan.time_format)
            if fault := check.fault(one):
                raise RowFault(fault)
        except RowFault as fault_of_row:
            rejects.add(row, str(fault_of_row))
        else:
            yield one


def _batches(clicks: Iterable[ForeignClick]) -> Iterator[list[ForeignClick]]:
    batch: list[ForeignClick] = []
    for one in clicks:
        batch.append(one)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _progress(path: Path) -> Iterator[Progress]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda read_bytes, report: None
        return
    from rich.console import Console  # noqa: PLC0415 - takes a tenth of a second, and only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size if path.exists() else None)
        yield lambda read_bytes, report: bar.update(
            task, completed=read_bytes, description=f"{report.stored} imported, {report.rejected} rejected"
        )


def _split(text: str) -> tuple[str, str]:
    column, sign, field = text.rpartition("=")
    if not sign or not column or not field:
        raise UserError(f"--map {text}: write COLUMN=FIELD, such as 'Click ID=transaction_id'")
    return column, field


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (OSError, LookupError, ValueError):
        raise UserError(f"--timezone {name}: no IANA time zone such as Europe/Berlin") from None


def _show(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
