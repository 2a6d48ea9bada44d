"""API keys. A token is told once, when its key is made; the database has its SHA-256 alone.

A token has 256 random bits, so its plain hash can be looked up by an index: nobody can try candidates against it, and
how long the look-up takes says nothing about the token.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import asyncpg
import msgspec

Scope = Literal["admin", "reports", "advertiser", "partner"]
Connection: TypeAlias = asyncpg.Connection

PREFIX = "ce_"
TOKEN_BYTES = 32
_COLUMNS = (
    "key_id, name, scope, advertiser_id, aff_id, created_at, created_by, expires_at, revoked_at, last_used_at,"
    " revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_in_force"
)


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `advertiser_id`, `aff_id`: whose figures it sees, 0 where its scope is not theirs."""

    key_id: int
    name: str
    scope: Scope
    advertiser_id: int
    aff_id: int
    created_at: Moment
    created_by: str
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None
    is_in_force: bool
    """Neither revoked nor expired when it was read."""


def new_token() -> str:
    """A token that nobody has."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> bytes:
    """What is kept of a token: 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


async def create_key(
    conn: Connection,
    token: str,
    *,
    name: str,
    scope: Scope,
    advertiser_id: int = 0,
    aff_id: int = 0,
    expires_at: datetime | None = None,
    created_by: str = "",
) -> ApiKey:
    """Store a key of that token; asyncpg's IntegrityConstraintViolationError if scope and ids do not fit."""
    row = await conn.fetchrow(
        "INSERT INTO api_keys (name, key_hash, scope, advertiser_id, aff_id, expires_at, created_by)"
        f" VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}",
        name,
        hash_token(token),
        scope,
        advertiser_id,
        aff_id,
        expires_at,
        created_by,
    )
    return _key(row)


async def admit_token(conn: Connection, token: str, name: str) -> bool:
    """Make that token the admin key of that name, in place of any other token that was.

    False: that token was revoked, and stays so.
    """
    async with conn.transaction():
        await conn.execute(
            "INSERT INTO api_keys (name, key_hash, scope, created_by) VALUES ($1, $2, 'admin', 'serve')"
            " ON CONFLICT (key_hash) DO NOTHING",
            name,
            hash_token(token),
        )
        await conn.execute(
            "UPDATE api_keys SET revoked_at = now()"
            " WHERE name = $1 AND created_by = 'serve' AND key_hash <> $2 AND revoked_at IS NULL",
            name,
            hash_token(token),
        )
    key = await find_by_hash(conn, hash_token(token))
    return key is not None and key.is_in_force


async def find_by_hash(conn: Connection, token_hash: bytes) -> ApiKey | None:
    """The key of that token, in force or not; None: there is none."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM api_keys WHERE key_hash = $1", token_hash)
    return _key(row) if row else None


async def load_key(conn: Connection, key_id: int) -> ApiKey | None:
    """That key; None: there is none."""
    row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM api_keys WHERE key_id = $1", key_id)
    return _key(row) if row else None


async def load_keys(conn: Connection, *, after: int = 0, limit: int = 1000) -> list[ApiKey]:
    """The keys by id, from the one after `after`; revoked and expired ones too."""
    rows = await conn.fetch(f"SELECT {_COLUMNS} FROM api_keys WHERE key_id > $1 ORDER BY key_id LIMIT $2", after, limit)
    return [_key(row) for row in rows]


async def change_key(conn: Connection, key_id: int, *, name: str, expires_at: datetime | None) -> ApiKey | None:
    """Rename a key, or let it end at another time; None: there is no such key."""
    row = await conn.fetchrow(
        f"UPDATE api_keys SET name = $2, expires_at = $3 WHERE key_id = $1 RETURNING {_COLUMNS}",
        key_id,
        name,
        expires_at,
    )
    return _key(row) if row else None


async def revoke_key(conn: Connection, key_id: int) -> ApiKey | None:
    """End a key for good; one that is revoked stays as it is. None: there is no such key."""
    row = await conn.fetchrow(
        f"UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = $1 RETURNING {_COLUMNS}",
        key_id,
    )
    return _key(row) if row else None


async def note_use(conn: Connection, key_ids: Sequence[int]) -> None:
    """Note that those keys were used now, each at most once a minute."""
    await conn.execute(
        "UPDATE api_keys SET last_used_at = now() WHERE key_id = ANY($1::int[])"
        " AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
        list(key_ids),
    )


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**dict(row))
