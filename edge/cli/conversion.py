"""`clickedge conversion`: look at stored conversions and change them, by their own ids."""

import getpass
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import click

from edge.cli.database import database_options, run_connected
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.errors import UserError
from edge.tracking.changes import CHANGE_REASONS, MAX_NOTE_CHARS, ChangeReason, ChangeRefused, Wanted
from edge.tracking.parameters import clean
from edge.tracking.payouts import parse_amount
from edge.tracking.status_codes import Status
from edge.tracking.story import tell_conversion
from storage.postgres.audit import Entry
from storage.postgres.changes import Held, find_changed_by
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.stories import find_conversion

F = TypeVar("F", bound=Callable[..., Any])
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_IDS = click.argument("ids", nargs=-1, required=True, metavar="ID...")
_NOTE = click.option("--note", default="", help=f"Anything else, at most {MAX_NOTE_CHARS} characters.")


@click.group()
def conversion() -> None:
    """Look at and change stored conversions (ID: a conversion's; - reads them from stdin, one a line)."""


@conversion.command()
@_IDS
@database_options
def show(ids: Sequence[str], data_dir: Path, database: str | None) -> None:
    """Print each conversion with all of its changes."""
    wanted = read_ids(ids)
    found = run_connected(resolve_url(database, data_dir), "conversion show", lambda conn: _show(conn, wanted))
    if found < len(wanted):
        raise SystemExit(1)


def _changes(function: F) -> F:
    """The options that all changes share."""
    with_reason = click.option("--reason", type=click.Choice(CHANGE_REASONS), default=None, help="Why.")(
        _NOTE(function)
    )
    return _IDS(database_options(with_reason))


def _money(*names: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for name in reversed(names):
            function = click.option(f"--{name}", default=None, help=f"The new {name}, such as 12.50.")(function)
        return function

    return decorate


@conversion.command()
@_money("amount", "payout", "revenue")
@_changes
def approve(ids: Sequence[str], **options: Any) -> None:
    """Approve what is pending, rejected or reversed; it earns what it would have, or what you say."""
    _apply(ids, "approved", options)


@conversion.command()
@_changes
def reject(ids: Sequence[str], **options: Any) -> None:
    """Reject what is pending or approved; --reason is required."""
    _apply(ids, "rejected", _with_reason(options))


@conversion.command()
@_changes
def reverse(ids: Sequence[str], **options: Any) -> None:
    """Take back what was approved; --reason is required."""
    _apply(ids, "reversed", _with_reason(options))


@conversion.command()
@_money("amount", "payout", "revenue")
@_changes
def adjust(ids: Sequence[str], **options: Any) -> None:
    """Change the amounts of what is approved or pending; what is not named stays; --reason is required."""
    if not any(options[name] for name in ("amount", "payout", "revenue")):
        raise UserError("nothing to adjust: say --amount, --payout or --revenue")
    _apply(ids, "", _with_reason(options))


def read_ids(arguments: Sequence[str]) -> list[UUID]:
    """The ids given, `-` being lines of stdin; UserError if one is none, so that nothing is begun."""
    texts = [text for argument in arguments for text in (_stdin_lines() if argument == "-" else [argument])]
    for text in texts:
        if not _ID.fullmatch(text):
            raise UserError(f"{text[:64]!a} is no conversion id: 32 hexadecimal digits")
    if not texts:
        raise UserError("no conversion ids on stdin")
    return list(dict.fromkeys(map(UUID, texts)))


def user() -> str:
    """Who runs the command, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _stdin_lines() -> Iterable[str]:
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    return (line.strip() for line in text.splitlines() if line.strip())


def _with_reason(options: dict[str, Any]) -> dict[str, Any]:
    if not options["reason"]:
        raise UserError(f"say why: --reason {' | '.join(CHANGE_REASONS)}")
    return options


def _amount(options: dict[str, Any], name: str) -> Decimal | None:
    text = options.get(name)
    if text is None:
        return None
    amount = parse_amount(text)
    if amount is None:
        raise UserError(f"--{name} {text[:40]!a}: allowed is a plain amount such as 12.50, at most 6 decimals")
    return amount


def _apply(ids: Sequence[str], status: str, options: dict[str, Any]) -> None:
    wanted = Wanted(
        cast(Status, status),
        cast(ChangeReason, options["reason"] or ""),
        *(_amount(options, name) for name in ("amount", "payout", "revenue")),
    )
    note = options["note"]
    if len(note) > MAX_NOTE_CHARS or clean(note) != note:
        raise UserError(f"--note: at most {MAX_NOTE_CHARS} characters, none of them a control character")
    targets = read_ids(ids)
    url = resolve_url(options["database"], options["data_dir"])
    failed = run_connected(
        url,
        "conversion",
        lambda conn: _change_all(conn, targets, wanted, note),
        written=lambda failed: _entry(targets, wanted, failed),
    )
    if failed:
        raise SystemExit(1)


def _entry(targets: Sequence[UUID], wanted: Wanted, failed: int) -> Entry | None:
    """What the audit log is told; each conversion's own changes are in `conversion_changes`."""
    if failed == len(targets):
        return None
    subject = f"id={targets[0].hex}" if len(targets) == 1 else ""
    detail = {"status": wanted.status, "reason": wanted.reason, "conversions": len(targets) - failed}
    return Entry(user(), "conversion change", subject, detail)


async def _change_all(conn: Connection, ids: Sequence[UUID], wanted: Wanted, note: str) -> int:
    """Change each in a transaction of its own and tell; how many could not be."""
    history, failed, actor = CatalogHistory(), 0, user()
    for one in ids:
        try:
            before, after = await change_conversion(conn, history, one, wanted, actor=actor, note=note)
        except ChangeRefused as refused:
            failed += 1
            click.echo(f"{one}: {refused}", err=True)
        else:
            click.echo(f"{one}: {', '.join(_differences(before, after))}")
    return failed


def _differences(before: Held, after: Held) -> Iterable[str]:
    for name in ("status", "amount", "payout", "revenue"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name} {old} -> {new}"


async def _show(conn: Connection, ids: Sequence[UUID]) -> int:
    found = 0
    for one in ids:
        holder = await find_changed_by(conn, one)
        row, changes = await find_conversion(conn, holder or one)
        if row is None:
            click.echo(f"{one}: there is no such conversion", err=True)
            continue
        found += 1
        if holder:
            click.echo(f"{one} is no conversion of its own: it changed this one")
        click.echo("\n".join(tell_conversion("conversion", row, changes)))
    return found
