"""What the database knows of the system's health."""

from typing import NamedTuple

from storage.postgres.connection import Connection


class DatabaseHealth(NamedTuple):
    """Rows that wait or went wrong, and sizes."""

    quarantined: int
    waiting: int
    postbacks_pending: int
    oldest_postback_s: float
    postbacks_dead: int
    open_journals: int
    revision: int
    size_bytes: int
    version: str


async def measure_health(conn: Connection) -> DatabaseHealth:
    """As it is now, of all nodes."""
    row = await conn.fetchrow(
        "SELECT (SELECT count(*) FROM quarantine),"
        " (SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL),"
        " (SELECT count(*) FROM postback_outbox WHERE state = 'pending'),"
        " (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8"
        "  FROM postback_outbox WHERE state = 'pending'),"
        " (SELECT count(*) FROM postback_outbox WHERE state = 'dead'),"
        " (SELECT count(*) FROM journal_positions WHERE finished_at IS NULL),"
        " (SELECT coalesce(max(revision), 0) FROM catalog_revisions),"
        " pg_database_size(current_database()), current_setting('server_version')"
    )
    return DatabaseHealth(*row)
