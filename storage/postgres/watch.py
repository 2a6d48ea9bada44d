"""What is watched of the database all the time, in one cheap query."""

from datetime import date, timedelta
from typing import NamedTuple

from storage.postgres.connection import Connection
from storage.postgres.partitions import partition_name

_QUERY = """
    SELECT (SELECT coalesce(extract(epoch FROM created_at), 0)::bigint
            FROM catalog_revisions ORDER BY revision DESC LIMIT 1) AS published_s,
           array(SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                 WHERE inhparent = 'clicks'::regclass AND NOT inhdetachpending AND relname >= $1) AS partitions
"""


class Watched(NamedTuple):
    """Partitions of clicks for the days after today, up to the first gap; the newest catalog revision's Unix time, 0: none."""

    partitions_ahead: int
    catalog_published_s: int


async def look(conn: Connection, today: date) -> Watched:
    """All of it. About 0.5 ms with 400 partitions."""
    row = await conn.fetchrow(_QUERY, partition_name("clicks", today))
    partitions = set(row["partitions"])
    days = 0
    while partition_name("clicks", today + timedelta(days=days + 1)) in partitions:
        days += 1
    return Watched(days, row["published_s"] or 0)
