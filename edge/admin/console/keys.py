"""Which key a person logs in with, and whether it still stands."""

import time

from edge.admin.api.operation import Caller
from edge.admin.backend import Backend
from storage.postgres.api_keys import ApiKey, find_by_hash, hash_token, load_key

STALE_AFTER_S = 3.0
"""So long a revoked key may still be believed."""
_MOST_KEYS = 10_000


class Keys:
    """Keys by token, and by id with a short memory."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[int, tuple[float, ApiKey | None]] = {}

    async def of_token(self, token: str) -> ApiKey | None:
        """The key of that token; None: there is none, or it is over."""
        async with self._backend.connection() as conn:
            return _in_force(await find_by_hash(conn, hash_token(token)))

    async def of_id(self, key_id: int) -> ApiKey | None:
        """The key of that id as it was at most three seconds ago."""
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known[0] > STALE_AFTER_S:
            async with self._backend.connection() as conn:
                key = _in_force(await load_key(conn, key_id))
            if len(self._known) >= _MOST_KEYS:
                self._known.clear()
            known = self._known[key_id] = (time.monotonic(), key)
        return known[1]


def caller_of(key: ApiKey) -> Caller:
    """Who holds the key."""
    return Caller(key.key_id, key.name, key.scope, key.advertiser_id, key.aff_id)


def print_of(key: ApiKey) -> str:
    """What tells this key from another that once had its id, as after a restore."""
    return f"{key.key_id} {key.created_at.timestamp()}"


def _in_force(key: ApiKey | None) -> ApiKey | None:
    return key if key is not None and key.is_in_force else None
