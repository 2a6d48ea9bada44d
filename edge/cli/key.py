"""`clickedge key`: who may use the API and the console."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import click

from edge.admin.keys import IssuedKey, KeyOrder, KeyRefused, issue_key
from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from storage.postgres.api_keys import ApiKey, Scope, load_keys, revoke_key
from storage.postgres.audit import Entry
from storage.postgres.connection import resolve_url

_DAYS = re.compile(r"([0-9]{1,4})d", re.ASCII)


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(get_args(Scope)), required=True, help="What the key may see and do.")
@click.option("--advertiser", "advertiser_id", type=int, default=0, help="With --scope advertiser: which one.")
@click.option("--partner", "aff_id", type=int, default=0, help="With --scope partner: which one.")
@click.option("--expires", help="When it ends: 90d, or a date and time (UTC where it has no offset).")
@database_options
def create(
    name: str,
    scope: Scope,
    advertiser_id: int,
    aff_id: int,
    expires: str | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Make a key called NAME and print its token: the only time that it is shown."""
    order = KeyOrder(
        name=name, scope=scope, advertiser_id=advertiser_id, aff_id=aff_id, expires_at=_parse_expiry(expires)
    )
    issued = _issue(resolve_url(database, data_dir), order)
    click.echo(f"key {issued.key.key_id} ({scope}) is made; this is its only showing:", err=True)
    click.echo(issued.token)


def _issue(url: str, order: KeyOrder) -> IssuedKey:
    try:
        return run_connected(url, "key create", lambda conn: issue_key(conn, order, user()), written=_made)
    except KeyRefused as error:
        raise UserError("; ".join(f"{field}: {problem}" for field, problem in error.faults)) from error


@key.command(name="list")
@database_options
def list_keys(data_dir: Path, database: str | None) -> None:
    """Print the keys, revoked ones too; never a token."""
    keys = run_connected(resolve_url(database, data_dir), "key list", load_keys)
    click.echo("\n".join(_describe(keys)) or "there is no key")


@key.command()
@click.argument("key_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
@database_options
def revoke(key_id: int, data_dir: Path, database: str | None) -> None:
    """End key ID for good: within seconds nobody gets in with it."""
    ended = run_connected(
        resolve_url(database, data_dir),
        "key revoke",
        lambda conn: revoke_key(conn, key_id),
        written=lambda done: Entry(user(), "key revoke", f"key_id={key_id}") if done else None,
    )
    if ended is None:
        raise UserError(f"there is no key {key_id}")
    click.echo(f"key {key_id} ({ended.name}) is revoked")


def _made(issued: IssuedKey) -> Entry:
    detail = {"scope": issued.key.scope, "advertiser_id": issued.key.advertiser_id, "aff_id": issued.key.aff_id}
    return Entry(user(), "key create", f"key_id={issued.key.key_id}", detail)


def _parse_expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    if found := _DAYS.fullmatch(text):
        return datetime.now(UTC) + timedelta(days=int(found[1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--expires: {text[:40]!a} is no time: write 90d or 2027-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _describe(keys: Sequence[ApiKey]) -> Iterator[str]:
    for one in keys:
        owner = f" {one.advertiser_id or one.aff_id}" if one.advertiser_id or one.aff_id else ""
        yield f"{one.key_id:>4}  {one.scope}{owner}  {one.name}  {_state(one)}  made {_moment(one.created_at)} by {one.created_by}"


def _state(one: ApiKey) -> str:
    if one.revoked_at:
        return f"revoked {_moment(one.revoked_at)}"
    if not one.is_in_force:
        return f"expired {_moment(one.expires_at)}"
    ends = f", until {_moment(one.expires_at)}" if one.expires_at else ""
    return (f"last used {_moment(one.last_used_at)}" if one.last_used_at else "never used") + ends


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "never"
