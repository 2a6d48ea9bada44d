"""A process's memory of recent sessions: a bounded LRU in plain dicts that cost the garbage collector nothing.

A dict keeps insertion order, so re-inserting on use makes its first key the least recently used. Small shards keep
the two costs of that short: skipping the holes at the front, and the rebuild when the table is full of holes.
"""

from typing import Generic, TypeVar

S = TypeVar("S")

SHARD_ENTRIES = 170
"""CPython rebuilds a full table at the power of two above 3 x entries: 170 is the most that fits 512 slots."""


class Sessions(Generic[S]):
    """16-byte id -> session: whatever the collector does not track, bytes or a struct without `gc`. Exact LRU within a shard, so exact up to SHARD_ENTRIES, near it above."""

    __slots__ = ("_shard_capacity", "_shard_count", "_shards")

    def __init__(self, capacity: int) -> None:
        """Never holds more than `capacity` entries. ValueError below 1."""
        if capacity < 1:
            raise ValueError(f"capacity {capacity}")
        self._shard_count = -(-capacity // SHARD_ENTRIES)
        self._shard_capacity = capacity // self._shard_count
        # A dict of such values is not tracked by the collector; one list of a few thousand shards is all it sees.
        self._shards: list[dict[bytes, S]] = [{} for _ in range(self._shard_count)]

    def put(self, session_id: bytes, session: S) -> None:
        """Keep `session`, forgetting the least recently used of its shard if there is no room."""
        # High bits of the hash, which the dict computes anyway: its low bits choose the slot within the shard.
        shard = self._shards[(hash(session_id) >> 32) % self._shard_count]
        if session_id in shard:
            del shard[session_id]
        elif len(shard) >= self._shard_capacity:
            del shard[next(iter(shard))]
        shard[session_id] = session

    def get(self, session_id: bytes) -> S | None:
        """The session, now the most recently used; None when it is not held."""
        shard = self._shards[(hash(session_id) >> 32) % self._shard_count]
        session = shard.pop(session_id, None)
        if session is not None:
            shard[session_id] = session
        return session

    def __len__(self) -> int:
        return sum(map(len, self._shards))
