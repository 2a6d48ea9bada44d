"""`clickedge stream`: who drains what, and how far each journal has come."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import click

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from storage.postgres.audit import Entry
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.stream_status import (
    JournalRow,
    PartitionRow,
    end_journal,
    list_partitions,
    list_streamed_journals,
)

QUIET_S = 60.0


@click.group(invoke_without_command=True)
@click.pass_context
@database_options
def stream(context: click.Context, data_dir: Path, database: str | None) -> None:
    """Print the stream's partitions with their drains, and the journals that come through it."""
    if context.invoked_subcommand is None:
        partitions, journals = run_connected(resolve_url(database, data_dir), "stream", _look)
        click.echo("\n".join([*_describe_partitions(partitions), "", *_describe_journals(journals)]))


@stream.command()
@click.argument("journal", metavar="JOURNAL")
@click.option("--force", is_flag=True, help="Although something of it was stored in the last minute.")
@database_options
def end(journal: str, force: bool, data_dir: Path, database: str | None) -> None:
    """Count JOURNAL as ended: its disk is lost, and nobody will ever ship the rest.

    Conversions wait for no click of it any longer. What of it is in the stream is still stored.
    """
    try:
        journal_id = UUID(journal)
    except ValueError:
        raise UserError(f"{journal!r} is no journal's id: `clickedge stream` prints them") from None
    done = run_connected(
        resolve_url(database, data_dir),
        "stream end",
        lambda conn: end_journal(conn, journal_id, quiet_s=0 if force else QUIET_S),
        written=lambda done: Entry(user(), "stream end", f"journal={journal_id.hex}") if done else None,
    )
    if done is None:
        raise UserError(f"no unfinished journal {journal_id.hex} came through the stream")
    if not done:
        raise UserError(f"journal {journal_id.hex} moved in the last minute: its shipper lives (--force: all the same)")
    click.echo(f"journal {journal_id.hex} has ended")


async def _look(conn: Connection) -> tuple[list[PartitionRow], list[JournalRow]]:
    return await list_partitions(conn), await list_streamed_journals(conn)


def _describe_partitions(rows: list[PartitionRow]) -> Iterator[str]:
    if not rows:
        yield "no partitions: no drain has reached the stream yet"
        return
    yield f"{'partition':>9}  {'drain':<32} {'since':>9} {'sequence':>12} {'takeovers':>9}"
    for row in rows:
        owner, since = row.owner_name or "(nobody)", f"{row.owned_s:.0f} s" if row.owner_name else ""
        yield f"{row.partition:>9}  {owner:<32} {since:>9} {row.sequence:>12} {row.takeovers:>9}"


def _describe_journals(rows: list[JournalRow]) -> Iterator[str]:
    if not rows:
        yield "no unfinished journal"
        return
    yield f"{'journal':<32} {'node':>4} {'worker':>6} {'partitions':>10} {'behind':>9} {'last moved':>10}  stored through"
    for row in rows:
        place = f"segment {row.least_place[0]} offset {row.least_place[1]}"
        behind = f"{row.behind_s:.1f} s" if row.behind_s < 1e9 else "all of it"
        yield (
            f"{row.journal_id.hex:<32} {row.node_id:>4} {row.worker_id:>6} {row.partitions:>10} {behind:>9}"
            f" {row.quiet_s:>8.0f} s  {place}"
        )
