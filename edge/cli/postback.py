"""`clickedge postback`: what partners were told of their conversions, and telling them once more."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click

from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from edge.replaying import replay as replay_now
from edge.tracking.click_id import read_well_formed
from edge.tracking.postback_story import tell_row
from storage.postgres.audit import Entry
from storage.postgres.connection import resolve_url
from storage.postgres.postbacks import list_postbacks

MAX_LISTED = 10_000


@click.group()
def postback() -> None:
    """Look at partners' postbacks, and send them once more."""


@postback.command("list")
@click.option("--failed", is_flag=True, help="Only those given up, and those that fail at present.")
@click.option("--limit", type=click.IntRange(1, MAX_LISTED), default=100, show_default=True, help="The newest ones.")
@database_options
def list_command(failed: bool, limit: int, data_dir: Path, database: str | None) -> None:
    """Print partners' postbacks, a line each, the newest first."""
    url = resolve_url(database, data_dir)
    rows = run_connected(url, "postback list", lambda conn: list_postbacks(conn, only_failed=failed, limit=limit))
    for row in rows:
        click.echo(tell_row(row))
    if not rows:
        click.echo("none")


@postback.command()
@click.argument("conversion_ids", metavar="[CONVERSION_ID]...", nargs=-1)
@click.option("--dead", is_flag=True, help="All conversions with a postback that was given up.")
@click.option("--since", metavar="TIME", help="All conversions received since then; UTC unless it has an offset.")
@database_options
def replay(
    conversion_ids: tuple[str, ...], dead: bool, since: str | None, data_dir: Path, database: str | None
) -> None:
    """Tell partners the present state of conversions once more, by the addresses that the catalog has now."""
    ids = [_to_uuid(text) for text in conversion_ids]
    moment = _to_moment(since) if since else None
    if not (ids or dead or moment):
        raise UserError("say what to replay: a CONVERSION_ID (see `clickedge explain`), --dead or --since TIME")
    done = run_connected(
        resolve_url(database, data_dir),
        "postback replay",
        lambda conn: replay_now(conn, ids=ids, are_dead=dead, since=moment, actor=_actor()),
        written=lambda done: Entry(_actor(), "postback replay", "", done._asdict()) if done.postbacks else None,
    )
    click.echo(f"{done.conversions} conversions, {done.postbacks} postbacks queued")
    if done.conversions < len(set(ids)):
        raise SystemExit(1)


def _to_uuid(text: str) -> UUID:
    found = read_well_formed(text.encode("utf-8", "replace").decode())
    if found is None:
        raise UserError(f"{text[:64]!a} is no conversion's id: 32 hexadecimal digits, see `clickedge explain`")
    return UUID(bytes=found)


def _to_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"--since: {text[:64]!a} is no time; allowed: such as 2026-11-22T10:00 or 2026-11-22") from error


def _actor() -> str:
    try:
        return f"replay by {getpass.getuser()}"
    except (KeyError, OSError):
        return "replay"
