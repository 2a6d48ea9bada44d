"""`clickedge export`: clicks, impressions, conversions and the rest as CSV, NDJSON or Parquet."""

import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from edge.exports.asking import FORMATS, Format, Shape, parse_selection
from edge.exports.reports import export_report, parse_report
from edge.exports.running import Progress, export_table
from edge.exports.whole_files import ReaderGone, Sink, write_whole
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.exports.tables import TABLES
from storage.postgres.installation import recall
from storage.postgres.reports.viewer import ADMIN


@click.command()
@click.argument("what", type=click.Choice([*sorted(TABLES), "reports"]))
@click.option("--from", "starts", help="A day (2026-10-01) or a time with its offset; that day included.")
@click.option("--to", "ends", help="A day, included; or a time with its offset, not included.")
@click.option("--timezone", help="Whose days they are [default: EDGE_TIMEZONE of serve].")
@click.option("--by", type=click.Choice(["conversion", "click"]), help="Conversions by their receipt or their click.")
@click.option("--offer", multiple=True, help="Only this offer's; may be repeated, as all of these.")
@click.option("--partner", multiple=True)
@click.option("--advertiser", multiple=True)
@click.option("--filter", "filters", multiple=True, metavar="DIMENSION=VALUE", help="Any other dimension of reports.")
@click.option("--columns", help="Of tables: which, comma-separated [default: all].")
@click.option("--dimensions", help="Of reports: what to group by, comma-separated.")
@click.option("--metrics", help="Of reports: which figures, comma-separated.")
@click.option("--set", "others", multiple=True, metavar="NAME=VALUE", help="Of reports: any other parameter, as sort or touch.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: by FILE's ending, else csv]")
@click.option("--for-spreadsheets", is_flag=True, help="CSV: an apostrophe before what a spreadsheet would calculate.")
@click.option("--out", default="-", metavar="FILE", help="[default: -, stdout]")
@database_options
def export(
    what: str,
    starts: str | None,
    ends: str | None,
    timezone: str | None,
    by: str | None,
    offer: Sequence[str],
    partner: Sequence[str],
    advertiser: Sequence[str],
    filters: Sequence[str],
    columns: str | None,
    dimensions: str | None,
    metrics: str | None,
    others: Sequence[str],
    form: Format | None,
    for_spreadsheets: bool,
    out: str,
    data_dir: Path,
    database: str | None,
) -> None:
    """Write rows of WHAT to a file, which is there only once it is whole, or to stdout."""
    single = {"from": starts, "to": ends, "timezone": timezone, "by": by, "columns": columns}
    single |= {"dimensions": dimensions, "metrics": metrics}
    parameters = [(name, value) for name, value in single.items() if value]
    for name, values in (("offer", offer), ("partner", partner), ("advertiser", advertiser)):
        parameters += [(name, value) for value in values]
    parameters += map(_split, (*filters, *others))
    shape = Shape(form or _guess(out), for_spreadsheets)
    url = resolve_url(database, data_dir)
    with _opened(out) as sink, _bar(what) as progress:
        rows = run_connected(url, "export", lambda conn: _export(conn, what, parameters, shape, sink, progress))
    click.echo(f"{rows} rows, {sink.written_bytes} bytes" + ("" if out == "-" else f": {out}"), err=True)


async def _export(
    conn: Connection,
    what: str,
    parameters: Sequence[tuple[str, str]],
    shape: Shape,
    sink: Sink,
    progress: Progress | None,
) -> int:
    zone = await recall(conn, "timezone", "UTC")
    now = datetime.fromtimestamp(time.time(), UTC)
    if what == "reports":
        query, is_whole = parse_report(parameters, ADMIN, now, zone)
        write = _writer(sink)
        return await export_report(conn, query, ADMIN, shape, write, progress, now=now, is_whole=is_whole)
    selection = parse_selection(TABLES[what], parameters, ADMIN, now, zone)
    return await export_table(conn, selection, shape, _writer(sink), progress)


def _writer(sink: Sink) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        sink.write(data)

    return write


@contextmanager
def _opened(out: str) -> Iterator[Sink]:
    """The file, or stdout; who stops reading that ends the command quietly, as `head` does."""
    if out != "-":
        with write_whole(Path(out)) as sink:
            yield sink
        return
    sys.stdout.flush()
    try:
        yield Sink(sys.stdout.fileno(), "stdout")
    except ReaderGone:
        # Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


@contextmanager
def _bar(what: str) -> Iterator[Progress | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - takes a tenth of a second, and only a terminal needs it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        # The number is the planner's guess: a bar that is full too soon would look finished.
        yield lambda rows, expected: bar.update(task, completed=rows, total=max(expected, rows + 1))


def _split(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"{text[:60]!a}: write NAME=VALUE, such as country=US")
    return name, value


def _guess(out: str) -> Format:
    ending = Path(out).suffix.removeprefix(".")
    return ending if ending in FORMATS else "csv"  # type: ignore[return-value]
