"""What was erased, remembered by its hashes: a journal that is drained later must not bring it back.

E1  Whoever stores what came through a journal, or what it says of a click that it has looked up, holds the lock shared,
    before all others, until its commit; a drain then asks for the version. Whoever adds an erasure or takes clicks away
    holds it alone. So every batch either is stored before the erasure looks for its rows, or knows of it.
E2  `erasure_id` only grows, with each row added and each made longer: the largest is the version of them all.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime
from typing import NamedTuple

import asyncpg

_LOCK_KEY = 0x4572617365  # "Erase"


class Erasure(NamedTuple):
    """A row of `erasures`; the fields are columns."""

    kind: str
    value_hash: bytes
    prefix: int
    until: datetime
    id_day: date | None = None
    is_derived: bool = False
    actor: str = ""


class Listed(NamedTuple):
    """An erasure that somebody asked for, as it is listed."""

    erasure_id: int
    kind: str
    hash: str
    until: datetime
    actor: str


_COLUMNS = ", ".join(Erasure._fields)


async def hold_erasures(conn: asyncpg.Connection) -> int:
    """Until the transaction's end nobody adds one (E1); the version, 0 while there is none (E2)."""
    await conn.execute("SELECT pg_advisory_xact_lock_shared($1)", _LOCK_KEY)
    # A statement of its own: its snapshot must be younger than the lock.
    return await erasure_version(conn)


async def erasure_version(conn: asyncpg.Connection) -> int:
    """The version by now (E2)."""
    version: int = await conn.fetchval("SELECT coalesce(max(erasure_id), 0) FROM erasures")
    return version


async def count_erasures(conn: asyncpg.Connection) -> int:
    """How many there are, derived ones too."""
    number: int = await conn.fetchval("SELECT count(*) FROM erasures")
    return number


async def shut_out_drains(conn: asyncpg.Connection) -> None:
    """Until the transaction's end no drain is in the middle of a batch (E1). Before any other lock."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)


async def add_erasures(conn: asyncpg.Connection, rows: Iterable[Erasure]) -> None:
    """Remember these; one that is known is made to reach further. In key order, as all upserts."""
    latest = {row[:3]: row for row in sorted(rows, key=lambda row: row.until)}
    if not latest:
        return
    columns = [list(column) for column in zip(*(latest[key] for key in sorted(latest)), strict=True)]
    await conn.execute(
        f"INSERT INTO erasures ({_COLUMNS}) SELECT * FROM unnest($1::text[], $2::bytea[], $3::smallint[],"
        " $4::timestamptz[], $5::date[], $6::boolean[], $7::text[]) ON CONFLICT (kind, value_hash, prefix) DO UPDATE"
        " SET until = excluded.until, actor = CASE WHEN excluded.is_derived THEN erasures.actor ELSE excluded.actor END,"
        " is_derived = erasures.is_derived AND excluded.is_derived, erasure_id = DEFAULT"
        " WHERE erasures.until < excluded.until OR (erasures.is_derived AND NOT excluded.is_derived)",
        *columns,
    )


async def load_erasures(conn: asyncpg.Connection, *, clicks: bool = False) -> list[Erasure]:
    """Contacts and addresses; `clicks`: those too."""
    rows = await conn.fetch(f"SELECT {_COLUMNS} FROM erasures" + ("" if clicks else " WHERE kind <> 'click'"))
    return [Erasure(*row) for row in rows]


async def latest_until(conn: asyncpg.Connection) -> datetime | None:
    """What happened later than this is not erased; None: nothing is."""
    until: datetime | None = await conn.fetchval("SELECT max(until) FROM erasures")
    return until


async def find_erased_clicks(conn: asyncpg.Connection, hashes: Collection[bytes]) -> dict[bytes, datetime]:
    """Those of the clicks, by hash, that are erased, and until when what names them is."""
    if not hashes:
        return {}
    rows = await conn.fetch(
        "SELECT value_hash, until FROM erasures WHERE kind = 'click' AND prefix = 0 AND value_hash = ANY($1)", list(hashes)
    )
    return {row["value_hash"]: row["until"] for row in rows}


async def erased_click_hashes(conn: asyncpg.Connection) -> set[bytes]:
    """The hashes of all erased clicks."""
    return {row["value_hash"] for row in await conn.fetch("SELECT value_hash FROM erasures WHERE kind = 'click'")}


async def list_erasures(conn: asyncpg.Connection, *, before_id: int | None = None, limit: int = 50) -> list[Listed]:
    """What somebody asked for, the latest first; `before_id`: those before that one."""
    rows = await conn.fetch(
        "SELECT erasure_id, kind, encode(value_hash, 'hex'), until, actor FROM erasures"
        " WHERE NOT is_derived AND ($1::bigint IS NULL OR erasure_id < $1) ORDER BY erasure_id DESC LIMIT $2",
        before_id,
        limit,
    )
    return [Listed(*row) for row in rows]
