"""Everything known about a transaction id, read for whoever tells it: the command, the API, the console."""

from edge.refusing_caps import find_refusing_caps
from edge.tracking.click_id import read_well_formed
from storage.postgres.connection import Connection
from storage.postgres.stories import Story, find_story


async def find_with_caps(conn: Connection, transaction_id: str) -> tuple[bytes | None, Story, list[str]]:
    """The id's bytes (None: it is none of ours), what is stored of it, and the caps that its click met."""
    click_id = read_well_formed(transaction_id)
    story = await find_story(conn, transaction_id, click_id)
    is_capped = story.click is not None and story.click["reason"] == "capped"
    return click_id, story, await find_refusing_caps(conn, story.click) if story.click and is_capped else []
