"""Reports that people keep: each its key's own; the network's keys may share theirs with each other."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from storage.errors import StorageError
from storage.postgres.connection import Connection

MAX_NAME_CHARS = 100
MAX_QUERY_CHARS = 8192
MAX_REPORTS = 500
_NETWORK = "('admin', 'reports')"


class SavedReport(msgspec.Struct, frozen=True):
    """`query`: its parameters as in a URL; `moving` "": with its dates, else the name of the period that it always has."""

    report_id: int
    key_id: int
    name: str
    query: str
    moving: str
    is_shared: bool
    saved_at: datetime
    owner: str


class NameTaken(StorageError):
    """The key has another report of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another report of yours is called {name!a}")


class TooMany(StorageError):
    """The key keeps as many as it may."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_REPORTS} reports are kept already: delete some")


async def save_report(
    conn: Connection, key_id: int, name: str, query: str, moving: str = "", *, is_shared: bool = False
) -> int:
    """Keep a report, in place of the key's own of that name; its id. TooMany."""
    async with conn.transaction():
        await conn.execute("SELECT 1 FROM api_keys WHERE key_id = $1 FOR NO KEY UPDATE", key_id)
        kept = await conn.fetchval("SELECT count(*) FROM saved_reports WHERE key_id = $1 AND name <> $2", key_id, name)
        if kept >= MAX_REPORTS:
            raise TooMany
        report_id: int = await conn.fetchval(
            "INSERT INTO saved_reports (key_id, name, query, moving, is_shared) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (key_id, name) DO UPDATE SET query = $3, moving = $4, is_shared = $5, saved_at = now()"
            " RETURNING report_id",
            key_id, name, query, moving, is_shared,
        )  # fmt: skip
    return report_id


async def list_reports(conn: Connection, key_id: int, *, with_shared: bool) -> list[SavedReport]:
    """The key's own by name, then those that others share. `with_shared`: whether the key is the network's."""
    return [
        _saved(row)
        for row in await conn.fetch(
            _SELECT + " WHERE saved.key_id = $1 OR ($2 AND saved.is_shared AND owner.revoked_at IS NULL"
            f" AND owner.scope IN {_NETWORK}) ORDER BY saved.key_id <> $1, lower(saved.name), saved.report_id",
            key_id,
            with_shared,
        )
    ]


async def find_report(conn: Connection, report_id: int, key_id: int, *, with_shared: bool) -> SavedReport | None:
    """One of those that `list_reports` gives."""
    found = await list_reports(conn, key_id, with_shared=with_shared)
    return next((one for one in found if one.report_id == report_id), None)


async def rename_report(conn: Connection, report_id: int, key_id: int, name: str, *, is_shared: bool) -> bool:
    """Another name, shared or not; False: the key has no such report. NameTaken."""
    try:
        done = await conn.execute(
            "UPDATE saved_reports SET name = $3, is_shared = $4 WHERE report_id = $1 AND key_id = $2",
            report_id, key_id, name, is_shared,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise NameTaken(name) from error
    return bool(done == "UPDATE 1")


async def delete_report(conn: Connection, report_id: int, key_id: int) -> bool:
    """Forget a report; False: the key has no such."""
    done = await conn.execute("DELETE FROM saved_reports WHERE report_id = $1 AND key_id = $2", report_id, key_id)
    return bool(done == "DELETE 1")


_SELECT = """
    SELECT saved.report_id, saved.key_id, saved.name, saved.query, saved.moving, saved.is_shared, saved.saved_at,
        owner.name AS owner
    FROM saved_reports AS saved JOIN api_keys AS owner USING (key_id)"""


def _saved(row: Sequence[object]) -> SavedReport:
    return SavedReport(*row)  # type: ignore[arg-type]
