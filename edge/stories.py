"""Everything known about a transaction id, read for whoever tells it: the command, the API, the console."""

from datetime import datetime

from edge.refusing_caps import find_refusing_caps
from edge.tracking.click_id import read_well_formed
from edge.tracking.tombstones import click_hash
from storage.postgres.connection import Connection
from storage.postgres.erasures import find_erased_clicks
from storage.postgres.stories import Story, find_story


async def find_erased_at(conn: Connection, click_id: bytes | None, story: Story) -> datetime | None:
    """When the click of that id was erased or, failing that, one of its conversions; None: never."""
    found = await find_erased_clicks(conn, [click_hash(click_id)]) if click_id else {}
    times = found.values() or [row["erased_at"] for row in story.conversions if row["erased_at"]]
    return min(times, default=None)


async def find_with_caps(conn: Connection, transaction_id: str) -> tuple[bytes | None, Story, list[str]]:
    """The id's bytes (None: it is none of ours), what is stored of it, and the caps that its click met."""
    click_id = read_well_formed(transaction_id)
    story = await find_story(conn, transaction_id, click_id)
    story = story._replace(erased_at=await find_erased_at(conn, click_id, story))
    is_capped = story.click is not None and story.click["reason"] == "capped"
    return click_id, story, await find_refusing_caps(conn, story.click) if story.click and is_capped else []
