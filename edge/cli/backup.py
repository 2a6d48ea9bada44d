"""`clickedge backup` and `clickedge restore`: a node's database and secrets as one file, and back."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.backups import restore_backup, take_backup
from edge.cli.database import database_options
from edge.cli.psql import split_password
from edge.doctor.findings import format_bytes
from edge.errors import UserError
from edge.logs import configure_logs
from storage.postgres.connection import is_retryable, resolve_url

T = TypeVar("T")
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_FILE
@database_options
def backup(file: Path, data_dir: Path, database: str | None) -> None:
    """Write the database, the click ids' secret and the node's identity to FILE, while serve runs.

    FILE is replaced once it is whole. Journals are not in it: a restored database is caught up from those on the disk.
    """
    taken = _run(take_backup(file.absolute(), resolve_url(database, data_dir), data_dir, split_password))
    with_it = f", {', '.join(taken.files)}" if taken.files else ""
    click.echo(f"{file}: {format_bytes(file.stat().st_size)}, the database as of {taken.contents.taken_at}{with_it}")
    if "secret" in taken.files:
        click.echo("it holds the click ids' secret: keep it as safe as the database, and not on this disk alone")


@click.command()
@_FILE
@click.option("--yes", is_flag=True, help="Replace a database that is not empty without asking.")
@database_options
def restore(file: Path, data_dir: Path, database: str | None, *, yes: bool) -> None:
    """Put FILE, which `clickedge backup` wrote, in the place of the database; with serve running or not.

    A running serve goes on answering and is cut off for a moment at the end. The former database is kept under another name.
    """
    configure_logs("restore")

    def agree(what: str) -> None:
        if not yes and not (sys.stdin.isatty() and click.confirm(f"{what}. Go on?")):
            raise UserError(f"{what}: say --yes to do it")

    restored = _run(restore_backup(file, database, data_dir.absolute(), split_password, agree))
    for note in restored.notes:
        click.echo(note)
    click.echo("restored; serve stores what the journals still have of later times")
    if restored.former:
        click.echo(f'the former database is kept: DROP DATABASE "{restored.former}" when you no longer want it')


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except Exception as error:
        if is_retryable(error):
            raise UserError(f"the database did not do it: {error or type(error).__name__}") from error
        raise
