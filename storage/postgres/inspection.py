"""What `doctor` asks a database: its settings, our rights in it, what it holds of this node. Nothing is changed.

Every question is asked in a session that cannot write.
"""

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

from storage.postgres.connection import Connection, connect
from storage.postgres.partitions import PARENTS, partition_name

STATEMENT_TIMEOUT_S = 20.0
_SETTINGS = (
    "server_version", "fsync", "full_page_writes", "synchronous_commit", "max_connections", "superuser_reserved_connections",
    "default_transaction_read_only", "autovacuum", "max_locks_per_transaction",
)  # fmt: skip


class Rights(NamedTuple):
    """`unowned`: tables of ours that another role owns, so that no partition can be added and no migration applied."""

    role: str
    can_create: bool
    unowned: list[str]


class NodeLease(NamedTuple):
    """Who has a node id."""

    data_dir_id: UUID
    leased_at: datetime
    has_secret_in_common: bool


class StalledJournals(NamedTuple):
    """How many of a node, and through which millisecond the furthest of them is stored."""

    node_id: int
    journals: int
    watermark_ms: int


class Burdens(NamedTuple):
    """What weighs on the server. Ages in seconds, 0 where there is none."""

    connections: int
    oldest_transaction_s: float
    oldest_transaction_of: str
    prepared_s: float
    frozen_age: int
    is_replica: bool


@asynccontextmanager
async def open_for_looking(url: str) -> AsyncIterator[Connection]:
    """A connection whose transactions are read only; errors as `connect`."""
    conn = await connect(url, application_name="clickedge doctor", command_timeout_s=STATEMENT_TIMEOUT_S)
    try:
        await conn.execute("SET default_transaction_read_only = on")
        yield conn
    finally:
        conn.terminate()


async def ask_settings(conn: Connection) -> dict[str, str]:
    """The server's settings as they hold for our sessions, by name."""
    rows = await conn.fetch(
        "SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1)", _SETTINGS
    )
    found = {row["name"]: row["value"] for row in rows}
    # This session's own answer would be ours.
    found["default_transaction_read_only"] = await conn.fetchval(
        "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'"
    )
    return found


async def measure_latency_s(conn: Connection, count: int = 9) -> float:
    """Median seconds of a question that needs no work."""
    took_s = []
    for _ in range(count):
        asked_s = time.perf_counter()
        await conn.fetchval("SELECT 1")
        took_s.append(time.perf_counter() - asked_s)
    return statistics.median(took_s)


async def measure_clock_s(conn: Connection) -> float:
    """How far the server's clock is ahead of ours, in seconds."""
    asked_s = time.time()
    theirs: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return theirs.timestamp() - (asked_s + time.time()) / 2


async def ask_rights(conn: Connection) -> Rights:
    """Whether this role can do what migrations and the drain need."""
    row = await conn.fetchrow(
        "SELECT current_user, has_schema_privilege(current_user, 'public', 'CREATE'),"
        " (SELECT coalesce(array_agg(relname::text ORDER BY relname), '{}') FROM pg_class"
        "  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        "    AND NOT pg_has_role(current_user, relowner, 'USAGE'))"
    )
    return Rights(*row)


async def ask_burdens(conn: Connection) -> Burdens:
    """Connections, forgotten transactions, the distance to a forced vacuum."""
    row = await conn.fetchrow(
        "SELECT (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'),"
        " coalesce(extract(epoch FROM clock_timestamp() - oldest.xact_start), 0)::float8,"
        " coalesce(oldest.application_name || ' (process ' || oldest.pid || ')', ''),"
        " (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(prepared)), 0)::float8 FROM pg_prepared_xacts),"
        " (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()), pg_is_in_recovery()"
        " FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT * FROM pg_stat_activity WHERE datname = current_database()"
        "   AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
        "   ORDER BY xact_start LIMIT 1) AS oldest ON true"
    )
    return Burdens(*row)


async def missing_partitions(conn: Connection, days: Sequence[date]) -> list[str]:
    """Names of partitions of those days that are not attached to their table."""
    names = [partition_name(parent, day) for day in days for parent in PARENTS]
    rows = await conn.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = ANY($1::text[]::regclass[])",
        list(PARENTS),
    )
    return sorted(set(names) - {row["name"] for row in rows})


async def ask_lease(conn: Connection, node_id: int, secret_prints: Sequence[str]) -> NodeLease | None:
    """Who has that node id; None: nobody yet."""
    row = await conn.fetchrow(
        "SELECT data_dir_id, leased_at, secret_prints && $2 FROM nodes WHERE node_id = $1", node_id, list(secret_prints)
    )
    return NodeLease(*row) if row else None


async def lost_journals(conn: Connection, node_id: int, present: Sequence[UUID]) -> list[UUID]:
    """Journals that this node drains itself, not wholly stored and not among `present`."""
    rows = await conn.fetch(
        "SELECT journal_id FROM journal_positions WHERE node_id = $1 AND partitions = 0 AND finished_at IS NULL"
        " AND journal_id <> ALL($2)",
        node_id,
        list(present),
    )
    return [row["journal_id"] for row in rows]


async def stalled_journals(conn: Connection, stalled_s: float) -> list[StalledJournals]:
    """Those that come through a stream, are not finished and have had no heartbeat stored for so long, by node."""
    rows = await conn.fetch(
        "SELECT node_id, count(*)::int, max(watermark_ms) FROM journal_positions"
        " WHERE partitions > 0 AND finished_at IS NULL AND watermark_ms < (extract(epoch FROM now()) - $1) * 1000"
        " AND updated_at < now() - make_interval(secs => $1)"  # what has only just begun has no watermark
        " GROUP BY node_id ORDER BY node_id",
        stalled_s,
    )
    return [StalledJournals(*row) for row in rows]


async def knows_zone(conn: Connection, name: str) -> bool:
    """Whether the server has that time zone."""
    return bool(await conn.fetchval("SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)", name))


async def ask_backup(conn: Connection) -> datetime | None:
    """When `clickedge backup` last began one that it finished; None: never."""
    text = await conn.fetchval("SELECT value FROM installation WHERE name = 'backed_up_at'")
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
