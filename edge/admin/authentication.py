"""Whose token is it: looked up at most every two seconds, and guessing is slowed down per address."""

import asyncio
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple
from weakref import WeakValueDictionary

from edge.errors import UserError
from storage.postgres.api_keys import ApiKey, Connection, find_by_hash, hash_token, note_use

KNOWN_S = 2.0
"""For so long a token is believed without asking: a revoked key gets in that long."""
USE_NOTED_S = 60.0
WINDOW_S = 60
MAX_FAILURES = 20
"""Unknown tokens of one address in a window; then unknown tokens are not even looked up."""
_MAX_COUNTED = 100_000
MAX_TOKEN_CHARS = 512

Connecting = Callable[[], AbstractAsyncContextManager[Connection]]


class TooManyFailures(UserError):
    """This address tried too many tokens that are none; `retry_after_s`: when it may try again."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("too many unknown API keys from this address")


class Allowance(NamedTuple):
    """What is left of a limit: `remaining` until it is new in `reset_s` seconds. `is_over`: this one is too many."""

    limit: int
    remaining: int
    reset_s: int
    is_over: bool


class Windows:
    """Counts per minute of the clock, by whatever tells clients apart; only the present minute is kept."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit`: how many in a window; 0: any number."""
        self._limit = limit
        self._clock = clock
        self._window = 0
        self._counts: dict[Hashable, int] = {}

    def take(self, client: Hashable, cost: int = 1) -> Allowance:
        """Count one more of this client; with `cost` 0 only look."""
        now_s = self._clock()
        window = int(now_s // WINDOW_S)
        if window != self._window or len(self._counts) > _MAX_COUNTED:
            self._window, self._counts = window, {}
        count = self._counts.get(client, 0) + cost
        if cost:
            self._counts[client] = count
        is_over = 0 < self._limit < count + (1 - cost)
        reset_s = max(1, int((window + 1) * WINDOW_S - now_s))
        return Allowance(self._limit, max(0, self._limit - count), reset_s, is_over)


class KeyRing:
    """The keys that were shown lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[float, ApiKey]] = {}
        self._noted_s: dict[int, float] = {}
        self._failures = Windows(MAX_FAILURES, clock)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By address: held while an unknown token of it is looked up."""

    async def find(self, connecting: Connecting, token: str, address: str = "") -> ApiKey | None:
        """The key in force of that token; None: nobody's. TooManyFailures, and whatever `connecting` raises."""
        if not 0 < len(token) <= MAX_TOKEN_CHARS:
            return None
        token_hash = hash_token(token)
        if known := self._lately(token_hash):
            return known
        if token_hash in self._known or not address:
            return await self._look_up(connecting, token_hash, address)
        # One after the other: guesses that come all at once are counted like others before the next is looked up.
        async with self._asking.setdefault(address, asyncio.Lock()):
            if known := self._lately(token_hash):
                return known
            allowance = self._failures.take(address, cost=0)
            if allowance.is_over:
                raise TooManyFailures(allowance.reset_s)
            return await self._look_up(connecting, token_hash, address)

    def forget(self, key_id: int) -> None:
        """Ask again for that key: it was changed or revoked here."""
        for token_hash in [one for one, (_, key) in self._known.items() if key.key_id == key_id]:
            del self._known[token_hash]

    def _lately(self, token_hash: bytes) -> ApiKey | None:
        """The key, if it was asked for a moment ago."""
        asked_s, key = self._known.get(token_hash, (0.0, None))
        return key if key is not None and self._clock() - asked_s < KNOWN_S else None

    async def _look_up(self, connecting: Connecting, token_hash: bytes, address: str) -> ApiKey | None:
        async with connecting() as conn:
            key = await find_by_hash(conn, token_hash)
            if key is None or not key.is_in_force:
                self._known.pop(token_hash, None)
                self._failures.take(address)
                return None
            await self._note(conn, key)
        self._remember(token_hash, key)
        return key

    async def _note(self, conn: Connection, key: ApiKey) -> None:
        now_s = self._clock()
        if now_s - self._noted_s.get(key.key_id, float("-inf")) >= USE_NOTED_S:
            await note_use(conn, [key.key_id])
            self._noted_s[key.key_id] = now_s

    def _remember(self, token_hash: bytes, key: ApiKey) -> None:
        if len(self._known) > _MAX_COUNTED:
            self._known.clear()
        self._known[token_hash] = (self._clock(), key)
