"""A replay by hand: the present state of conversions told to their partners once more, by the catalog in force."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from edge.announcing import Announcement, outbox_rows
from edge.tracking.catalog import Catalog
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection
from storage.postgres.copy import Uuid
from storage.postgres.outbox import queue
from storage.postgres.postbacks import close_unfinished, find_heard, find_ids, heard_as, lock_told

PAGE = 1000


class Replayed(NamedTuple):
    """How many conversions were found, and how many postbacks queued for them."""

    conversions: int
    postbacks: int


async def replay(
    conn: Connection,
    *,
    ids: Sequence[UUID] = (),
    are_dead: bool = False,
    since: datetime | None = None,
    actor: str,
    page: int = PAGE,
) -> Replayed:
    """Queue anew what partners are to hear of these conversions; what was unfinished or given up of them is closed.

    With `are_dead` alone, an address that has answered 2xx to the conversion's present state is not told again.

    Page by page, each in a transaction of its own: breaking off leaves some replayed and the others as they were.
    """
    catalog = Catalog.empty().changed(*await load_current(conn))
    event = f"replay {datetime.now(UTC).isoformat(timespec='milliseconds')}"
    wanted = await find_ids(conn, ids=ids, are_dead=are_dead, since=since)
    is_mending = not ids and since is None  # then addresses that have heard it are left alone
    postbacks = 0
    for start in range(0, len(wanted), page):
        chosen = wanted[start : start + page]
        async with conn.transaction():
            told = [Announcement(Uuid(one[0].bytes), event, *one[1:]) for one in await lock_told(conn, chosen)]
            heard = await find_heard(conn, chosen) if is_mending else set()
            rows = [row for one in told for row in outbox_rows(catalog, one, actor=actor) if heard_as(row) not in heard]
            await close_unfinished(conn, chosen)
            postbacks += await queue(conn, rows)
    return Replayed(len(wanted), postbacks)
