"""`clickedge month`: close months, so that later changes are booked in the hour in which they are made."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from edge.tracking.months import MonthSpan, parse_month, span_of
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.installation import recall
from storage.postgres.months import ClosedMonth, close_month, closed_months, reopen_month, undrained_journals

F = TypeVar("F", bound=Callable[..., Any])
SETTLED_AFTER = timedelta(minutes=10)
"""No transaction lasts that long: nothing is still being booked in a month that ended earlier."""


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
    span = run_connected(url, "month close", lambda conn: _close(conn, first_day, force=force))
    click.echo(f"{month_name} is closed: {span.starts_at} to {span.ends_at}")


@month.command()
@click.argument("month_name", metavar="MONTH")
@database_options
def reopen(month_name: str, data_dir: Path, database: str | None) -> None:
    """Open MONTH again; what was booked elsewhere meanwhile stays there."""
    first_day = _parse(month_name)
    url = resolve_url(database, data_dir)
    if not run_connected(url, "month reopen", lambda conn: reopen_month(conn, first_day)):
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


async def _close(conn: Connection, first_day: date, *, force: bool) -> MonthSpan:
    span = span_of(first_day, ZoneInfo(await recall(conn, "timezone", "UTC")))
    if datetime.fromtimestamp(time.time(), UTC) < span.ends_at + SETTLED_AFTER:
        raise UserError(f"{first_day:%Y-%m} is not over: it can be closed from {span.ends_at + SETTLED_AFTER} on")
    undrained = await undrained_journals(conn, round(span.ends_at.timestamp() * 1000))
    if undrained and not force:
        raise UserError(f"{undrained} journals may still hold events of {first_day:%Y-%m}: wait, or say --force")
    if not await close_month(conn, *span, user()):
        raise UserError(f"{first_day:%Y-%m} is closed already")
    return span


def _describe(months: Iterable[ClosedMonth]) -> Iterable[str]:
    for one in months:
        yield f"{one.month:%Y-%m}  {one.starts_at} to {one.ends_at}  closed {one.closed_at:%Y-%m-%d %H:%M} by {one.actor}"
