"""`clickedge explain`: everything known about a transaction id, in words."""

from pathlib import Path

import click
import orjson

from edge.cli.database import database_options, run_connected
from edge.refusing_caps import find_refusing_caps
from edge.tracking.click_id import read_well_formed
from edge.tracking.story import tell
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.stories import Story, find_story


@click.command()
@click.argument("transaction_id")
@click.option("--json", "as_json", is_flag=True, help="The rows themselves.")
@database_options
def explain(transaction_id: str, as_json: bool, data_dir: Path, database: str | None) -> None:
    """Tell the story of TRANSACTION_ID: its click, its conversions, each decision and why."""
    transaction_id = transaction_id.encode("utf-8", "replace").decode()  # what the shell passed need not be UTF-8
    click_id = read_well_formed(transaction_id)
    url = resolve_url(database, data_dir)
    story, caps = run_connected(url, "explain", lambda conn: _find(conn, transaction_id, click_id))
    if as_json:
        click.echo(orjson.dumps(story._asdict(), default=str, option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n".join(tell(transaction_id, click_id, story, caps)))
    if not any(story):
        raise SystemExit(1)


async def _find(conn: Connection, transaction_id: str, click_id: bytes | None) -> tuple[Story, list[str]]:
    """What is stored of the id, and the caps that its click met."""
    story = await find_story(conn, transaction_id, click_id)
    is_capped = story.click is not None and story.click["reason"] == "capped"
    return story, await find_refusing_caps(conn, story.click) if story.click and is_capped else []
