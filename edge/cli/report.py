"""`clickedge report`: a report on the terminal, or as CSV or JSON."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.installation import recall
from storage.postgres.reports.answer import encode_answer, to_answer
from storage.postgres.reports.labels import label_of
from storage.postgres.reports.periods import Period
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, Row, explain_report, run_report
from storage.postgres.reports.viewer import ADMIN

_PASSED = (
    "dimensions",
    "metrics",
    "from",
    "to",
    "timezone",
    "by",
    "clicks",
    "touch",
    "compare",
    "sort",
    "limit",
    "cursor",
)


@click.command()
@click.option("--from", "from_", metavar="DATE", default="", help="First day, or a time with offset.")
@click.option("--to", metavar="DATE", default="", help="Last day, or the time before which it ends.")
@click.option("--dimensions", default="", help="Such as date,offer; docs/reports.md has all of them.")
@click.option("--metrics", default="", help="Such as clicks,conversions,cr,epc.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Such as offer=17; several of one name: any."
)
@click.option("--timezone", default="", help="Whose days and hours; else EDGE_TIMEZONE of serve.")
@click.option("--by", default="", help="conversion (when it was booked) or click (when that was).")
@click.option("--clicks", default="", help="What ratios count by: valid, gross or unique clicks.")
@click.option("--touch", default="", help="last, first, linear, time_decay or position.")
@click.option("--compare", default="", help="previous: beside each figure its change.")
@click.option("--sort", default="", help="A dimension or metric; -revenue: the largest first.")
@click.option("--limit", default="", help="Rows at most.")
@click.option("--cursor", default="", help="Of the page before: its next_cursor.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, one line a row.")
@click.option("--json", "as_json", is_flag=True, help="What the API answers.")
@click.option("--explain", "wants_plan", is_flag=True, help="PostgreSQL's plan instead.")
@database_options
def report(
    filters: Sequence[str],
    as_csv: bool,
    as_json: bool,
    wants_plan: bool,
    data_dir: Path,
    database: str | None,
    **options: str,
) -> None:
    """Print a report: clicks, conversions, money, by any dimensions."""
    parameters = _parameters(options, filters)
    url = resolve_url(database, data_dir)
    if wants_plan:
        click.echo("\n".join(run_connected(url, "report", lambda conn: _explain(conn, parameters))))
        return
    found = run_connected(url, "report", lambda conn: _run(conn, parameters))
    if as_json:
        click.echo(msgspec.json.format(encode_answer(to_answer(found))))
    elif as_csv:
        click.echo(_to_csv(found), nl=False)
    else:
        _print(found)


def _parameters(options: dict[str, str], filters: Iterable[str]) -> list[tuple[str, str]]:
    parameters = [(name, options["from_" if name == "from" else name]) for name in _PASSED]
    given = [(name, value) for name, value in parameters if value]
    for one in filters:
        name, equals, value = one.partition("=")
        if not equals or name in _PASSED:
            raise UserError(f"--filter {one[:60]!a}: write it NAME=VALUE, such as offer=17")
        given.append((name, value))
    return given


async def _run(conn: Connection, parameters: Sequence[tuple[str, str]]) -> Report:
    now = datetime.now(UTC)
    query = parse_query(parameters, ADMIN, now, await recall(conn, "timezone", "UTC"))
    return await run_report(conn, query, ADMIN, now)


async def _explain(conn: Connection, parameters: Sequence[tuple[str, str]]) -> list[str]:
    query = parse_query(parameters, ADMIN, datetime.now(UTC), await recall(conn, "timezone", "UTC"))
    return await explain_report(conn, query, ADMIN)


def _to_csv(found: Report) -> str:
    """Ids as ids; beside a name where there is one. An empty field: there is no such figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    is_compared = found.previous_period is not None
    labels = [one.label for one in found.dimensions]
    for one in found.metrics:
        labels += [one.label, *([f"{one.label} before", f"{one.label} change %"] if is_compared else [])]
    writer.writerow(labels)
    for row in found.rows:
        cells = [_cell(row.dimensions[one.name]) for one in found.dimensions]
        for one in found.metrics:
            beside = [(figures or {}).get(one.name) for figures in (row.previous, row.change)] if is_compared else []
            cells += map(_cell, [row.metrics[one.name], *beside])
        writer.writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else str(value)


def _print(found: Report) -> None:
    table = Table(show_footer=True)
    for place, one in enumerate(found.dimensions):
        table.add_column(one.label, footer="all" if not place else "")
    for one in found.metrics:
        table.add_column(one.label, justify="right", footer=_figure(found.totals, one.name, one.kind))
    for row in found.rows:
        names = [_name(found, row, one.name) for one in found.dimensions]
        table.add_row(*names, *(_figure(row, one.name, one.kind) for one in found.metrics))
    table.add_section()
    for row in found.totals_by_currency if {*found.query.dimensions} - {"currency"} else ():
        names = ["" if place else "all" for place in range(len(found.dimensions))]
        names[[one.name for one in found.dimensions].index("currency")] = row.dimensions["currency"] or "-"
        table.add_row(*names, *(_figure(row, one.name, one.kind) for one in found.metrics))
    console = Console()
    console.print(table, markup=False)
    for line in _remarks(found):
        console.print(line, markup=False, highlight=False)


def _name(found: Report, row: Row, dimension: str) -> str:
    value, name = row.dimensions[dimension], label_of(found.labels, row.dimensions, dimension)
    return f"{value} {name}" if name else _cell(value) or "-"


def _figure(row: Row, name: str, kind: str) -> str:
    """The figure, and beside it what it was before, where the report is compared."""
    text = _written(row.metrics[name], kind)
    if row.previous is None:
        return text
    change = row.change.get(name) if row.change else None
    beside = f"was {_written(row.previous.get(name), kind)}" + ("" if change is None else f", {change:+.1f} %")
    return f"{text} ({beside})"


def _written(value: Decimal | int | None, kind: str) -> str:
    if value is None:
        return "-"
    if kind == "money":
        return money(Decimal(value))
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return f"{text} %" if kind == "percent" else text


def money(value: Decimal) -> str:
    """1,234.50, with up to four decimals where they say something: 0.0042."""
    whole, _, decimals = f"{value:,.4f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _remarks(found: Report) -> Iterable[str]:
    query = found.query
    own = f"; by {query.by} date; touch: {query.touch}; {query.clicks} clicks"
    yield f"{_span(query.period)} ({query.period.timezone}){own}"
    if found.previous_period:
        yield f"against {_span(found.previous_period)}"
    if len(found.currencies) == 1:
        yield f"money in {found.currencies[0] or 'no currency'}"
    yield from found.notes
    if found.next_cursor:
        yield f"{len(found.rows)} of {found.row_count} rows; the next: --cursor {found.next_cursor}"
    fresh = found.freshness
    yield (
        f"complete through {fresh.as_of:%Y-%m-%d %H:%M:%S} UTC ({fresh.lag_s} s ago)"
        if fresh.as_of
        else "nothing is stored yet"
    )


def _span(period: Period) -> str:
    return " to ".join(at.astimezone(period.zone).isoformat(timespec="minutes") for at in (period.starts_at, period.ends_at))
