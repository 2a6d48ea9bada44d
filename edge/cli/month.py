"""`clickedge month`: close months, so that later changes are booked in the hour in which they are made."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.closing import close as close_it
from edge.errors import UserError
from edge.tracking.months import parse_month
from storage.postgres.audit import Entry
from storage.postgres.connection import resolve_url
from storage.postgres.months import ClosedMonth, closed_months, reopen_month

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def month() -> None:
    """Close months to later changes (MONTH: such as 2026-10, in the time zone EDGE_TIMEZONE of serve)."""


@month.command()
@click.argument("month_name", metavar="MONTH")
@click.option("--force", is_flag=True, help="Although a journal may still hold events of that month.")
@database_options
def close(month_name: str, force: bool, data_dir: Path, database: str | None) -> None:
    """Close MONTH: changes of its conversions are booked in the hour in which they are made."""
    first_day = _parse(month_name)
    url = resolve_url(database, data_dir)
    now = datetime.fromtimestamp(time.time(), UTC)
    span = run_connected(
        url,
        "month close",
        lambda conn: close_it(conn, first_day, now=now, actor=user(), force=force),
        written=lambda _: Entry(user(), "month close", f"month={month_name}", {"force": True} if force else {}),
    )
    click.echo(f"{month_name} is closed: {span.starts_at} to {span.ends_at}")


@month.command()
@click.argument("month_name", metavar="MONTH")
@database_options
def reopen(month_name: str, data_dir: Path, database: str | None) -> None:
    """Open MONTH again; what was booked elsewhere meanwhile stays there."""
    first_day = _parse(month_name)
    url = resolve_url(database, data_dir)
    was_closed = run_connected(
        url,
        "month reopen",
        lambda conn: reopen_month(conn, first_day),
        written=lambda done: Entry(user(), "month reopen", f"month={month_name}") if done else None,
    )
    if not was_closed:
        raise UserError(f"{month_name} is not closed")
    click.echo(f"{month_name} is open")


@month.command(name="list")
@database_options
def list_months(data_dir: Path, database: str | None) -> None:
    """Print the closed months."""
    url = resolve_url(database, data_dir)
    found = run_connected(url, "month list", lambda conn: closed_months(conn, to_change=False))
    click.echo("\n".join(_describe(found)) or "no month is closed")


def _parse(text: str) -> date:
    found = parse_month(text)
    if found is None:
        raise UserError(f"{text[:40]!a} is no month: write it 2026-10")
    return found


def _describe(months: Iterable[ClosedMonth]) -> Iterable[str]:
    for one in months:
        yield f"{one.month:%Y-%m}  {one.starts_at} to {one.ends_at}  closed {one.closed_at:%Y-%m-%d %H:%M} by {one.actor}"
