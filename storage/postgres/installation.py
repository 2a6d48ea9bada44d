"""What the drains and the commands must agree on, such as the time zone: written by the former, read by the latter."""

import asyncpg

from storage.errors import StorageError


async def remember(conn: asyncpg.Connection, name: str, value: str) -> None:
    """Store a value under its name."""
    await conn.execute(
        "INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2"
        " WHERE installation.value <> $2",
        name,
        value,
    )


async def recall(conn: asyncpg.Connection, name: str, default: str) -> str:
    """The value of that name; `default` where nobody has stored one."""
    value: str | None = await conn.fetchval("SELECT value FROM installation WHERE name = $1", name)
    return default if value is None else value


CLICKS_KEPT = "click_retention_s"


async def clicks_kept_s(conn: asyncpg.Connection) -> int:
    """How long clicks are kept, in seconds, by the node that last looked; 400 days before any has."""
    return int(await recall(conn, CLICKS_KEPT, str(400 * 86400)))


class DatabaseReplaced(StorageError):
    """The connection leads to another database than the last one did."""


class SameDatabase:
    """Notices that a database was replaced under its name, as by a restore: what is remembered of it is then wrong."""

    def __init__(self) -> None:
        self._known: tuple[int, int] | None = None

    async def check(self, conn: asyncpg.Connection) -> None:
        """DatabaseReplaced if this is not the database that the first connection led to."""
        row = await conn.fetchrow(
            "SELECT (SELECT system_identifier FROM pg_control_system()), oid::bigint FROM pg_database"
            " WHERE datname = current_database()"
        )
        found = (row[0], row[1])
        if self._known not in (None, found):
            raise DatabaseReplaced("the database was replaced by another (restored from a backup?): starting afresh")
        self._known = found
