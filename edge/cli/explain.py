"""`clickedge explain`: everything known about a transaction id, in words."""

from pathlib import Path

import click
import orjson

from edge.cli.database import database_options, run_connected
from edge.stories import find_with_caps
from edge.tracking.story import tell
from storage.postgres.connection import resolve_url


@click.command()
@click.argument("transaction_id")
@click.option("--json", "as_json", is_flag=True, help="The rows themselves.")
@database_options
def explain(transaction_id: str, as_json: bool, data_dir: Path, database: str | None) -> None:
    """Tell the story of TRANSACTION_ID: its click, its conversions, each decision and why."""
    transaction_id = transaction_id.encode("utf-8", "replace").decode()  # what the shell passed need not be UTF-8
    url = resolve_url(database, data_dir)
    click_id, story, caps = run_connected(url, "explain", lambda conn: find_with_caps(conn, transaction_id))
    if as_json:
        click.echo(orjson.dumps(story._asdict(), default=str, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n".join(tell(transaction_id, click_id, story, caps)))
    if not any(story):
        raise SystemExit(1)

