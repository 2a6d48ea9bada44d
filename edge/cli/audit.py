"""`clickedge audit`: who changed what."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson

from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from storage.postgres.audit import Filter, Listed, list_entries
from storage.postgres.connection import resolve_url


@click.command()
@click.option("--actor", default="", help="Only what this person or key did.")
@click.option("--action", default="", help="Only this action, or those that begin with this word.")
@click.option("--subject", default="", help="Only what was done to this.")
@click.option("--since", help="From this date or time on (UTC where it has no offset).")
@click.option("--until", help="Before this date or time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The latest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@database_options
def audit(
    actor: str,
    action: str,
    subject: str,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    data_dir: Path,
    database: str | None,
) -> None:
    """List what people and keys changed, and log-ins, the latest first."""
    wanted = Filter(actor, action, subject, _moment("--since", since), _moment("--until", until))
    found = run_connected(resolve_url(database, data_dir), "audit", lambda conn: list_entries(conn, wanted, limit))
    lines = map(_as_json, found) if as_json else _describe(found)
    if text := "\n".join(lines):
        click.echo(text)
    elif not as_json:
        click.echo("nothing of that is written down")


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option}: {text[:40]!a} is no date or time: write 2026-10-31 or 2026-10-31T12:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _as_json(one: Listed) -> str:
    return orjson.dumps(one._asdict()).decode()


def _describe(found: Sequence[Listed]) -> Iterator[str]:
    for one in found:
        detail = ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in one.detail.items())
        parts = (f"{one.at:%Y-%m-%d %H:%M:%S}", one.actor, one.action, one.subject, detail, one.address)
        yield "  ".join(ascii(part)[1:-1] if not part.isprintable() else part for part in parts if part)
