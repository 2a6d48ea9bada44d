"""`clickedge erase`: take out of the database what names a person."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.erasing import Order, Report, count, erase
from edge.errors import UserError
from edge.node import with_secrets
from edge.settings import load_settings
from edge.tracking.click_id import read_well_formed
from edge.tracking.tombstones import Target, address_target, contact_target
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.external_ids import find_external_ids


@click.command(name="erase")
@click.option("--contact", "contacts", multiple=True, metavar="ID", help="Everything of this contact; may be repeated.")
@click.option("--click", "clicks", multiple=True, metavar="ID", help="One click or impression, by its transaction id.")
@click.option("--ip", "addresses", multiple=True, metavar="ADDRESS|CIDR", help="Everything from this address or network.")
@click.option("--dry-run", is_flag=True, help="Count the rows by table, change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML, as for serve.")
@database_options
def erase_command(
    contacts: tuple[str, ...],
    clicks: tuple[str, ...],
    addresses: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    config: Path | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Erase people: their rows at once, and what journals still hold of them when it is drained.

    Roll-ups, and the money of conversions, stay. A run that was cut off is finished by running it again.
    """
    targets = [*map(contact_target, contacts), *map(address_target, addresses)]
    if not targets and not clicks:
        raise UserError("say whom to erase: --contact ID, --click ID or --ip ADDRESS")
    settings = load_settings(os.environ, config, {"data_dir": data_dir, "database_url": database})
    url = resolve_url(settings.database_url, settings.data_path)
    secret = with_secrets(settings).secrets[0]
    wanted = run_connected(url, "erase", lambda conn: _with_clicks(conn, targets, clicks))
    order = Order(wanted, secret, user())
    if not dry_run and not yes and sys.stdin.isatty():
        found = run_connected(url, "erase", lambda conn: count(conn, order))
        click.echo("\n".join(describe(found, is_done=False)))
        click.confirm("Erase all of this? It cannot be undone", abort=True)
    report = run_connected(url, "erase", lambda conn: count(conn, order) if dry_run else erase(conn, order))
    click.echo("\n".join(describe(report, is_done=not dry_run)))


def describe(report: Report, *, is_done: bool) -> Iterator[str]:
    """The lines that tell what was done, or would be."""
    for table, rows in sorted(report.rows.items()):
        yield f"{rows:>10}  {table}"
    if not is_done:
        yield "nothing is changed" if report.rows else "nothing is stored of them; nothing is changed"
        return
    yield f"{sum(report.rows.values())} rows erased, and what journals hold until {report.until:%Y-%m-%d %H:%M:%S} UTC"


async def _with_clicks(conn: Connection, targets: Sequence[Target], clicks: Sequence[str]) -> list[Target]:
    """And the clicks, by their own ids or those of other systems; each once."""
    known = await find_external_ids(conn, [one for one in clicks if read_well_formed(one) is None])
    found = []
    for text in clicks:
        click_id = read_well_formed(text) or known.get(text)
        if click_id is None:
            raise UserError(f"{text[:64]!a} is the id of no click: 32 hexadecimal digits, or another system's id")
        found.append(Target("click", click_id))
    return list(dict.fromkeys([*targets, *found]))
