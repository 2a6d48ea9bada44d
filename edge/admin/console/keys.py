"""Which key a person logs in with, and whether it still stands."""

import hashlib
import hmac
import time
from datetime import UTC, datetime

from edge.admin.console.page import Backend, Caller
from storage.postgres.console_keys import find_key_by_hash, find_key_by_id

STALE_AFTER_S = 3.0
"""So long a revoked key may still be believed."""
_MOST_KEYS = 10_000


class Keys:
    """Keys by token, and by id with a short memory."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[int, tuple[float, bytes, Caller | None]] = {}

    async def of_token(self, token: str) -> tuple[bytes, Caller] | None:
        """The hash and the holder of a key; None: there is no such key, or it is over."""
        key_hash = hashlib.sha256(token.encode()).digest()
        if hmac.compare_digest(key_hash, self._first_hash()):
            return key_hash, _FIRST
        async with self._backend.connection() as conn:
            row = await find_key_by_hash(conn, key_hash, datetime.now(UTC))
        return (key_hash, Caller(*row[1:])) if row else None

    async def of_id(self, key_id: int) -> tuple[bytes, Caller] | None:
        """The hash and the holder of the key of that id, as it was at most three seconds ago."""
        if key_id == _FIRST.key_id:
            return self._first_hash(), _FIRST
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known[0] > STALE_AFTER_S:
            async with self._backend.connection() as conn:
                row = await find_key_by_id(conn, key_id, datetime.now(UTC))
            if len(self._known) >= _MOST_KEYS:
                self._known.clear()
            known = (time.monotonic(), row[0], Caller(*row[1:])) if row else (time.monotonic(), b"", None)
            self._known[key_id] = known
        return (known[1], known[2]) if known[2] else None

    def _first_hash(self) -> bytes:
        return hashlib.sha256(self._backend.settings.admin_token.encode()).digest()


_FIRST = Caller(0, "first key", "admin")
"""The key that the settings name, or that was generated at the first start."""
