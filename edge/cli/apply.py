"""`clickedge apply`: a catalog file into the database."""

import getpass
import sys
from pathlib import Path

import click

from edge.admin.catalog_apply import ApplyResult, apply_text
from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from storage.postgres.audit import Entry
from storage.postgres.connection import resolve_url

MAX_DIFF_LINES = 500


@click.command()
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--prune", is_flag=True, help="Archive what the file does not name.")
@database_options
def apply(file: str, dry_run: bool, prune: bool, data_dir: Path, database: str | None) -> None:
    """Make the catalog say what FILE (- for stdin) says of the items it names."""
    text = read_catalog_text(file)
    name = "stdin" if file == "-" else file
    result = run_connected(
        resolve_url(database, data_dir),
        "apply",
        lambda conn: apply_text(conn, text, name, dry_run=dry_run, prune=prune, actor=_actor()),
        written=lambda done: None if dry_run else entry_of(done, _actor()),
    )
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    for line in render(result, dry_run=dry_run):
        click.echo(line)


def read_catalog_text(file: str) -> str:
    """The text of a catalog file, `-` being stdin; UserError if it cannot be read."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: byte {error.start} is wrong") from error


def render(result: ApplyResult, *, dry_run: bool) -> list[str]:
    """The lines that tell what happened: the changes, a summary, the revision."""
    lines = result.diff[:MAX_DIFF_LINES]
    if len(result.diff) > MAX_DIFF_LINES:
        lines.append(f"… and {len(result.diff) - MAX_DIFF_LINES} more lines")
    if not result.created + result.updated + result.archived:
        return [f"nothing to change: revision {result.revision}"]
    counts = f"{result.created} created, {result.updated} updated, {result.archived} archived"
    outcome = f"dry run, still revision {result.revision}" if dry_run else f"revision {result.revision}"
    return [*lines, f"{counts}: {outcome}"]


def entry_of(done: ApplyResult, actor: str) -> Entry | None:
    """What the audit log is told of it; None where nothing was changed."""
    if not done.created + done.updated + done.archived:
        return None
    counts = {"created": done.created, "updated": done.updated, "archived": done.archived}
    return Entry(actor, "apply", f"revision={done.revision}", counts)


def _actor() -> str:
    try:
        return f"apply by {getpass.getuser()}"
    except (KeyError, OSError):
        return "apply"
