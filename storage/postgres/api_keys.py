"""Keys of the API, kept as SHA-256 of their text."""

from typing import Any

from storage.postgres.connection import Connection


async def find_key(conn: Connection, key_hash: bytes) -> dict[str, Any] | None:
    """The key of this hash while it is valid: key_id, name, scope, advertiser_id, aff_id."""
    row = await conn.fetchrow(
        "SELECT key_id, name, scope, advertiser_id, aff_id FROM api_keys"
        " WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
        key_hash,
    )
    return dict(row) if row else None
