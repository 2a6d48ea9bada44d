"""Keys that a person may log in with."""

from datetime import datetime
from typing import NamedTuple

from storage.postgres.connection import Connection


class KeyRow(NamedTuple):
    """A key that stands: neither revoked nor over."""

    key_hash: bytes
    key_id: int
    name: str
    scope: str
    advertiser_id: int
    aff_id: int


_FIND = (
    f"SELECT {', '.join(KeyRow._fields)} FROM api_keys"
    " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2) AND "
)


async def find_key_by_hash(conn: Connection, key_hash: bytes, now: datetime) -> KeyRow | None:
    """The key whose token has this SHA-256."""
    row = await conn.fetchrow(f"{_FIND} key_hash = $1", key_hash, now)
    return KeyRow(*row) if row else None


async def find_key_by_id(conn: Connection, key_id: int, now: datetime) -> KeyRow | None:
    """The key of that id."""
    row = await conn.fetchrow(f"{_FIND} key_id = $1", key_id, now)
    return KeyRow(*row) if row else None
