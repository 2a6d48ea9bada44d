"""`clickedge statement`: what a month owes each partner, and is owed by each advertiser."""

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import click
import msgspec

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.closing import close as close_month
from edge.errors import UserError
from edge.exports.whole_files import write_whole
from edge.statements.building import summarise
from edge.statements.finding import Whose, find_statement, find_statements
from edge.statements.forms import to_csv, to_overview, to_page, to_text
from edge.statements.statement import Statement
from edge.tracking.months import parse_month
from storage.postgres.audit import Entry
from storage.postgres.connection import Connection, resolve_url

Form = Literal["text", "csv", "html", "json"]


@click.command()
@click.option("--month", "month_name", required=True, metavar="MONTH", help="Such as 2026-10.")
@click.option("--partner", type=click.IntRange(1), help="Only this partner's.")
@click.option("--advertiser", type=click.IntRange(1), help="Only this advertiser's.")
@click.option("--csv", "form", flag_value="csv", help="A table.")
@click.option("--html", "form", flag_value="html", help="Pages to print.")
@click.option("--json", "form", flag_value="json", help="As the API gives them.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write a file for each into this folder.")
@click.option("--close", is_flag=True, help="Close the month first, as `month close` does.")
@click.option("--force", is_flag=True, help="Close it although a journal may still hold events of it.")
@database_options
def statement(
    month_name: str,
    partner: int | None,
    advertiser: int | None,
    form: Form | None,
    out: Path | None,
    close: bool,
    force: bool,
    data_dir: Path,
    database: str | None,
) -> None:
    """The statements of MONTH (in the time zone EDGE_TIMEZONE of serve): preliminary while it is open, final once closed."""
    month = parse_month(month_name)
    if month is None:
        raise UserError(f"{month_name[:40]!a} is no month: write it 2026-10")
    if partner and advertiser:
        raise UserError("say --partner or --advertiser, not both")
    if form in ("csv", "html") and not out and not (partner or advertiser):
        raise UserError(f"--{form} of all of them makes several files: say --out DIR, or whose with --partner or --advertiser")
    wanted = [Whose("partner", partner)] if partner else [Whose("advertiser", advertiser)] if advertiser else []

    async def work(conn: Connection) -> list[Statement]:
        now = datetime.fromtimestamp(time.time(), UTC)
        if close:
            await close_month(conn, month, now=now, actor=user(), force=force)
        return await _find(conn, month, wanted, now)

    found = run_connected(
        resolve_url(database, data_dir),
        "statement",
        work,
        written=lambda _: Entry(user(), "month close", f"month={month_name}") if close else None,
    )
    if out:
        _write(found, form or "csv", out)
    else:
        click.echo(_print(found, form or "text", is_one=bool(wanted)), nl=False)


async def _find(conn: Connection, month: date, wanted: list[Whose], now: datetime) -> list[Statement]:
    if not wanted:
        both = [await find_statements(conn, month, party, now=now) for party in ("partner", "advertiser")]
        return [one for found in both for one in found]
    found = await find_statement(conn, month, wanted[0], now=now)
    if found is None:
        raise UserError(f"there is no {wanted[0].party} {wanted[0].id}")
    return [found]


def _print(found: list[Statement], form: Form, *, is_one: bool) -> str:
    if form == "json":
        return "".join(_json(one) + "\n" for one in found)
    if not is_one:
        return to_overview([line for one in found for line in summarise(one)])
    return {"text": to_text, "csv": lambda one: to_csv([one]), "html": to_page}[form](found[0])


def _write(found: list[Statement], form: Form, folder: Path) -> None:
    ending = "txt" if form == "text" else form
    for one in found:
        path = folder / f"statement-{one.month}-{one.party}-{one.id}.{ending}"
        with write_whole(path) as file:
            file.write(_print([one], form, is_one=True).encode())
        click.echo(f"{path}{'' if one.is_final else '  (preliminary)'}")
    if not found:
        click.echo("nothing in this month")


def _json(one: Statement) -> str:
    return msgspec.json.Encoder(decimal_format="number").encode(one).decode()
