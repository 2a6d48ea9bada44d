"""The schema, as numbered SQL files, and what applies them.

M1  A file is applied in one transaction together with its row in `schema_migrations`: wholly or not at all.
M2  One session at a time migrates a database (advisory lock); the others wait, and then find nothing to do.
M3  A file that was applied never changes.
M4  No statement waits for a table lock longer than `LOCK_TIMEOUT_S`, so a migration never queues all traffic
    behind a forgotten transaction. Who calls `migrate` tries again: the file is rolled back, nothing is half done.
M5  The release before this one goes on working, and can be started, on tables that this one has migrated; the one before
    that is refused. Its last file is `PREVIOUS_RELEASE`, moved on with each release.

What M5 asks of a file: it adds tables, columns and indexes, with defaults for writers that do not know them; it drops,
renames and narrows nothing that the release before uses (that takes two releases: stop using it, then drop it), and what
it fills in from rows it must not rely on later, since the old drain still writes. What M4 asks: a table that the drain
writes is altered last in its file, and one such table a file, so that its lock is held for milliseconds; no default that
rewrites the table, no CHECK without NOT VALID. An index on a large table keeps COPY out while it is built: the journal
holds what comes meanwhile.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import structlog

from storage.errors import DatabaseUnusable

LOCK_TIMEOUT_S = 3
PREVIOUS_RELEASE = 14
_LOCK_KEY = 0x436C69636B456467  # "ClickEdg"
_POLL_S = 0.2
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str
    works_from: int = PREVIOUS_RELEASE
    """Code that knows the files through this one works on the tables that this file leaves."""

    @property
    def checksum(self) -> str:
        """What `schema_migrations` remembers the file by."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations() -> list[Migration]:
    """The files of this package, in order."""
    files = [(_FILE_NAME.fullmatch(file.name), file) for file in resources.files(__package__).iterdir()]
    found = [Migration(int(name[1]), name[2], file.read_text(encoding="utf-8")) for name, file in files if name]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(connection: Any, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Bring the database up to this code; the names applied now. DatabaseUnusable when the two do not fit."""
    wanted = read_migrations() if migrations is None else migrations
    await _lock(connection)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
            " ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS works_from int"
        )
        applied = await connection.fetch("SELECT version, name, checksum, works_from FROM schema_migrations")
        missing = _missing(wanted, applied)
        for migration in missing:
            await _apply(connection, migration)
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)
    return [migration.name for migration in missing]


async def find_missing(connection: Any) -> list[str]:
    """Names of the files not yet applied; nothing is changed. DatabaseUnusable when the two do not fit."""
    wanted = read_migrations()
    if not await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        return [migration.name for migration in wanted]
    # An earlier release's table has no works_from.
    applied = await connection.fetch(
        "SELECT version, name, checksum, (to_jsonb(one) ->> 'works_from')::int AS works_from FROM schema_migrations AS one"
    )
    return [migration.name for migration in _missing(wanted, applied)]


async def _lock(connection: Any) -> None:
    # Polled: a blocked pg_advisory_lock is one long statement, whose snapshot holds back another's CREATE INDEX
    # CONCURRENTLY, and which a command timeout would cut.
    waited = 0
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
        if waited % 25 == 0:
            _log.info("migrations_wait", reason="another process is migrating this database")
        waited += 1
        await asyncio.sleep(_POLL_S)


def _missing(wanted: Sequence[Migration], applied: Sequence[Any]) -> list[Migration]:
    """What is still to apply, after comparing what was applied with what this code knows."""
    known = {migration.version: migration for migration in wanted}
    newest = max(known)
    for row in applied:
        migration = known.get(row["version"])
        if migration is None and row["works_from"] is not None and row["works_from"] <= newest:
            continue  # the next release's (M5)
        if migration is None:
            raise DatabaseUnusable(
                f"the database has migration {row['version']:04} ({row['name']}), which this release does not know:"
                " it was used by a much newer release; run that release, or the one before it"
            )
        if migration.checksum != row["checksum"]:
            raise DatabaseUnusable(
                f"migration {row['version']:04} ({row['name']}) is not the file that this database was built with;"
                " install an unmodified release"
            )
    done = {row["version"] for row in applied}
    return [migration for migration in wanted if migration.version not in done]


async def _apply(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {round(LOCK_TIMEOUT_S * 1000)}")
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum, works_from) VALUES ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            migration.checksum,
            migration.works_from,
        )
    _log.info("migration_applied", version=migration.version, name=migration.name)
