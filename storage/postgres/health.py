"""What the database knows of the installation's health, in a few small counts."""

from typing import NamedTuple

from storage.postgres.connection import Connection

MAX_COUNTED = 100_000
"""Counting stops here: a count that costs a scan helps nobody who is in trouble."""


class DatabaseHealth(NamedTuple):
    """Counts are at most 100,000; ages in seconds, 0 where there is nothing."""

    catalog_revision: int
    postbacks_pending: int
    postbacks_oldest_s: float
    postbacks_dead: int
    quarantined: int
    conversions_waiting: int
    database_bytes: int
    database_version: str
    open_journals: int


async def measure_health(conn: Connection) -> DatabaseHealth:
    """All of it."""

    def counted(what: str) -> str:
        return f"(SELECT count(*)::int FROM (SELECT FROM {what} LIMIT {MAX_COUNTED}) AS counted)"

    row = await conn.fetchrow(
        "SELECT (SELECT coalesce(max(revision), 0) FROM catalog_revisions),"
        f" {counted('''postback_outbox WHERE state = 'pending' ''')},"
        " (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM ("
        f"   SELECT created_at FROM postback_outbox WHERE state = 'pending' LIMIT {MAX_COUNTED}) AS pending),"
        f" {counted('''postback_outbox WHERE state = 'dead' ''')},"
        f" {counted('quarantine')},"
        f" {counted('conversions_waiting WHERE decided_at IS NULL')},"
        " pg_database_size(current_database()), current_setting('server_version'),"
        " (SELECT count(*)::int FROM journal_positions WHERE finished_at IS NULL)"
    )
    return DatabaseHealth(*row)
