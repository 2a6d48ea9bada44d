"""Runs of imports: what was read, what became of it, and whether a run that says it runs really does."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg

_LOCK_CLASS = 0x436C4549
COUNTS = ("stored", "known", "differ", "changed", "skipped", "rejected")
_COLUMNS = (
    "import_id, kind, file_name, sha256, actor, state, error, started_at, finished_at, size_bytes, read_bytes, rows_stored,"
    " rows_known, rows_differ, rows_changed, rows_skipped, rows_rejected, plan, examples"
)
# A run holds its lock as long as its connection lasts: one that was killed does not.
_STATE = (
    "CASE WHEN state = 'running' AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    f" AND classid = {_LOCK_CLASS} AND objid = import_id::oid AND database = (SELECT oid FROM pg_database"
    " WHERE datname = current_database())) THEN 'interrupted' ELSE state END AS state"
)
_SELECT = f"SELECT {_COLUMNS.replace(' state,', f' {_STATE},')} FROM imports"


class Progress(NamedTuple):
    """How far a run is. `counts`: rows by what became of them, named as COUNTS."""

    read_bytes: int
    counts: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]] = ()


async def create_run(
    conn: asyncpg.Connection, kind: str, file_name: str, size_bytes: int, actor: str, plan: Mapping[str, Any]
) -> int:
    """A run that waits for its turn; its id."""
    import_id: int = await conn.fetchval(
        "INSERT INTO imports (kind, file_name, size_bytes, actor, plan, state) VALUES ($1, $2, $3, $4, $5, 'waiting')"
        " RETURNING import_id",
        kind,
        file_name,
        size_bytes,
        actor,
        dict(plan),
    )
    return import_id


async def start_run(conn: asyncpg.Connection, import_id: int, size_bytes: int, plan: Mapping[str, Any]) -> None:
    """It runs, as long as this connection lasts or until it is finished."""
    await conn.execute("SELECT pg_advisory_lock($1, $2)", _LOCK_CLASS, import_id)
    await conn.execute(
        "UPDATE imports SET state = 'running', size_bytes = $2, plan = plan || $3 WHERE import_id = $1",
        import_id,
        size_bytes,
        dict(plan),
    )


async def note_progress(conn: asyncpg.Connection, import_id: int, progress: Progress) -> None:
    """How far it is by now."""
    counted = ", ".join(f"rows_{name} = ${place}" for place, name in enumerate(COUNTS, 4))
    await conn.execute(
        f"UPDATE imports SET read_bytes = $2, examples = $3, {counted} WHERE import_id = $1",
        import_id,
        progress.read_bytes,
        list(progress.examples),
        *(progress.counts.get(name, 0) for name in COUNTS),
    )


async def finish_run(conn: asyncpg.Connection, import_id: int, *, sha256: str = "", error: str = "") -> None:
    """It is done or, with an error, has failed."""
    await conn.execute(
        "UPDATE imports SET state = CASE WHEN $3 = '' THEN 'done' ELSE 'failed' END, sha256 = $2, error = $3,"
        " finished_at = now() WHERE import_id = $1",
        import_id,
        sha256,
        error,
    )
    await conn.execute("SELECT pg_advisory_unlock($1, $2)", _LOCK_CLASS, import_id)


async def find_same_file(conn: asyncpg.Connection, kind: str, sha256: str, before: int | None) -> int | None:
    """The latest earlier run that read this very file to its end; `before`: this one's own id."""
    found: int | None = await conn.fetchval(
        "SELECT max(import_id) FROM imports WHERE kind = $1 AND sha256 = $2 AND state = 'done'"
        " AND ($3::int IS NULL OR import_id < $3)",
        kind,
        sha256,
        before,
    )
    return found


async def find_run(conn: asyncpg.Connection, import_id: int) -> dict[str, Any] | None:
    """A run; None if there is none. One that was killed has the state `interrupted`."""
    row = await conn.fetchrow(f"{_SELECT} WHERE import_id = $1", import_id)
    return dict(row) if row else None


async def list_runs(conn: asyncpg.Connection, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Runs, the latest first; `before`: only those with a lower id."""
    rows = await conn.fetch(
        f"{_SELECT} WHERE $2::int IS NULL OR import_id < $2 ORDER BY import_id DESC LIMIT $1", limit, before
    )
    return [dict(row) for row in rows]


async def pick_run(conn: asyncpg.Connection, import_ids: Sequence[int]) -> dict[str, Any] | None:
    """The first of these that waits, or that was broken off, marked as tried once more; None: there is none."""
    rows = await conn.fetch(f"{_SELECT} WHERE import_id = ANY($1) ORDER BY import_id", list(import_ids))
    for row in rows:
        if row["state"] in ("waiting", "interrupted"):
            await conn.execute(
                "UPDATE imports SET plan = plan || jsonb_build_object('tries', $2::int) WHERE import_id = $1",
                row["import_id"],
                row["plan"].get("tries", 0) + 1,
            )
            return dict(row)
    return None


async def list_open(conn: asyncpg.Connection, import_ids: Sequence[int]) -> set[int]:
    """Those of these that are not done and have not failed."""
    rows = await conn.fetch(
        "SELECT import_id FROM imports WHERE import_id = ANY($1) AND state IN ('waiting', 'running')", list(import_ids)
    )
    return {row["import_id"] for row in rows}
