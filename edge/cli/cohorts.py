"""`clickedge cohorts`: what contacts brought in after they came, as a table, CSV or JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from edge.cli.database import database_options, run_connected
from edge.cli.report import money
from edge.errors import UserError
from edge.exports.cohorts import to_csv
from storage.postgres.cohorts import Cohort, Window, find_cohorts
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.contact_filter import UTM
from storage.postgres.contact_query import parse_cohorts
from storage.postgres.installation import recall

_FILTERS = ("list", "currency", *UTM)
_json = msgspec.json.Encoder(decimal_format="number")


@click.command()
@click.option("--from", "from_", metavar="DATE", default="", help="First day on which they came; else 180 days ago.")
@click.option("--to", metavar="DATE", default="", help="Last day on which they came; else today.")
@click.option("--cohort", default="", help="day, week or month of their sign-up.")
@click.option("--windows", default="", help="Days after which to look, such as 7,30,90.")
@click.option(
    "--filter", "filters", multiple=True, metavar="NAME=VALUE", help=f"{', '.join(_FILTERS)}; several of one name: any."
)
@click.option("--timezone", default="", help="Whose days; else EDGE_TIMEZONE of serve.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, one line a cohort and window.")
@click.option("--json", "as_json", is_flag=True, help="What the API answers.")
@database_options
def cohorts(
    filters: Sequence[str], as_csv: bool, as_json: bool, data_dir: Path, database: str | None, **options: str
) -> None:
    """Print revenue by sign-up cohort: what contacts brought in 7, 30 and 90 days after they came."""
    parameters = _parameters(options, filters)
    found = run_connected(resolve_url(database, data_dir), "cohorts", lambda conn: _find(conn, parameters))
    if as_json:
        click.echo(msgspec.json.format(_json.encode({"data": found})))
    elif as_csv:
        click.echo(to_csv(found), nl=False)
    else:
        _print(found)


def _parameters(options: dict[str, str], filters: Sequence[str]) -> list[tuple[str, str]]:
    given = [(name.removesuffix("_"), value) for name, value in options.items() if value]
    for one in filters:
        name, equals, value = one.partition("=")
        if not equals or name not in _FILTERS:
            raise UserError(f"--filter {one[:60]!a}: write it NAME=VALUE, with a name of {', '.join(_FILTERS)}")
        given.append((name, value))
    return given


async def _find(conn: Connection, parameters: list[tuple[str, str]]) -> list[Cohort]:
    now = datetime.now(UTC)
    return await find_cohorts(conn, parse_cohorts(parameters, now, await recall(conn, "timezone", "UTC")), now)


def _print(found: Sequence[Cohort]) -> None:
    if not found:
        click.echo("no contact came in that time")
        return
    table = Table()
    table.add_column("Cohort")
    table.add_column("Contacts", justify="right")
    table.add_column("Currency")
    for window in found[0].windows:
        table.add_column(f"{window.days} days", justify="right")
        table.add_column("per contact", justify="right")
    for one in found:
        cells = [cell for window in one.windows for cell in _cells(window)]
        table.add_row(str(one.starts_on), f"{one.contacts:,}", one.currency or "-", *cells)
    console = Console()
    console.print(table, markup=False)
    if any(not window.is_complete for one in found for window in one.windows):
        console.print("* not over yet for all of them", markup=False, highlight=False)


def _cells(window: Window) -> tuple[str, str]:
    mark = "" if window.is_complete else " *"
    return f"{money(window.revenue)}{mark}", f"{money(window.revenue_per_contact)}{mark}"
