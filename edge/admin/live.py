"""Clicks and conversions as they are stored, for whoever listens: one look at the database twice a second for all of them.

Nobody listens: nothing is asked. A listener that does not keep up is told so and let go.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import structlog

from edge.admin.backend import Backend, DatabaseAway
from edge.admin.sight import is_theirs, shown
from edge.logs import RateLimited
from edge.tracking.click_id import ms_of, node_of, worker_of
from storage.postgres.catalog import load_owners
from storage.postgres.connection import Connection, is_retryable
from storage.postgres.live import (
    Mark,
    Row,
    changes_after,
    newest_clicks,
    read_marks,
    recent_changes,
)

POLL_S = 0.5
RETRY_S = 2.0
MAX_LISTENERS = 64
MAX_OF_A_KEY = 8
MAX_QUEUED = 10_000
MAX_ROWS = 500
MAX_CHANGES = 5000
"""At one look. Of more clicks only the newest are told, of changes the others at the next look."""
GAP_S = 10.0
"""A number that nobody has used by then was given up by its transaction."""
LOOK_BACK = 1000
"""So many numbers below the highest are watched from the start: those under way then come later than it did."""
MAX_OWNERS = 100_000
"""Of offers, each at a revision, that are remembered."""

quietly = RateLimited(structlog.get_logger(), 5.0)


class TooManyListeners(Exception):
    """There are as many as may be."""


class Happened(NamedTuple):
    """One event. `mark`: where to go on after it, see `Since`."""

    kind: str
    row: Row
    mark: str

    @property
    def key(self) -> object:
        """The same each time this is found."""
        return self.row["change_id" if self.kind == "conversion" else "click_id"]


class Since(NamedTuple):
    """Where a listener was: the last change's number, the last click's millisecond."""

    change_id: int
    click_ms: int

    @classmethod
    def parse(cls, text: str) -> "Since | None":
        """`123-1790000000000`; None for anything else."""
        change_id, _, click_ms = text.partition("-")
        fits = all(part.isascii() and part.isdigit() and len(part) <= 14 for part in (change_id, click_ms))
        return cls(int(change_id), int(click_ms)) if fits else None

    def __str__(self) -> str:
        return f"{self.change_id}-{self.click_ms}"


class Interest(NamedTuple):
    """What a listener wants, and may see. Empty: all."""

    scope: str = "admin"
    advertiser_id: int = 0
    aff_id: int = 0
    kinds: frozenset[str] = frozenset()
    offer_ids: frozenset[int] = frozenset()
    aff_ids: frozenset[int] = frozenset()
    key_id: int = 0
    """Whose key it is, as one may not take all places; 0: nobody's."""

    def wants(self, event: Happened) -> bool:
        """Whether it is to be told of this."""
        row = event.row
        is_asked = (
            (not self.kinds or event.kind in self.kinds)
            and (not self.offer_ids or row["offer_id"] in self.offer_ids)
            and (not self.aff_ids or row["aff_id"] in self.aff_ids)
        )
        return is_asked and is_theirs(row, self.scope, self.advertiser_id, self.aff_id)

    def seen(self, event: Happened) -> dict[str, Any]:
        """What it is told."""
        return {"event": event.kind, **shown(event.row, self.scope)}


class Listener:
    """One who listens."""

    def __init__(self, interest: Interest, since: Since | None = None) -> None:
        self.interest = interest
        self.since = since
        self.is_lagging = False
        self.has_joined = asyncio.get_running_loop().create_future()
        """Done: whatever is stored from now on is told."""
        self._missed: set[object] = set()
        self._queue: asyncio.Queue[Happened | None] = asyncio.Queue(MAX_QUEUED)

    def catch_up(self, events: Iterable[Happened]) -> None:
        """Tell what was missed; the look-out may come upon some of it again."""
        for event in events:
            self.tell(event)
            self._missed.add(event.key)

    def tell(self, event: Happened | None) -> None:
        """Queue an event (None: it is over), unless too many are queued already, or it was among those missed."""
        if event is not None and (not self.interest.wants(event) or (self._missed and event.key in self._missed)):
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.is_lagging = True

    async def next(self, timeout_s: float) -> Happened | None:
        """The next event; None: it is over. TimeoutError: there was none in that time."""
        return await asyncio.wait_for(self._queue.get(), timeout_s)


class Changes:
    """Which change numbers were seen: each is told once, whatever the order in which they become visible (L2)."""

    def __init__(self, floor: int, seen: Iterable[int] = (), now_s: float = 0.0) -> None:
        self.floor = floor
        """All up to here are told or given up."""
        self._seen = dict.fromkeys(seen, now_s)

    @property
    def highest(self) -> int:
        """Of all that were seen."""
        return max(self._seen, default=self.floor)

    def take(self, rows: Iterable[Row], now_s: float) -> list[Row]:
        """Those that are new."""
        new = [row for row in rows if row["change_id"] > self.floor and row["change_id"] not in self._seen]
        self._seen.update((row["change_id"], now_s) for row in new)
        for change_id in sorted(self._seen):
            if change_id != self.floor + 1 and now_s - self._seen[change_id] < GAP_S:
                break
            self.floor = change_id
            del self._seen[change_id]
        return new


class LiveFeed:
    """All listeners of a process, and the one who looks for them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._listeners: set[Listener] = set()
        self._places: list[int] = []
        """The keys of all that listen or are still being told what they missed."""
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False
        self._owners: dict[tuple[int, int], int] = {}
        self.looks = 0
        """How often the database was asked."""

    @asynccontextmanager
    async def listen(self, interest: Interest, since: Since | None = None) -> AsyncIterator[Listener]:
        """Listen for as long as the block lasts; with `since` what was missed comes first, as far as it is at hand."""
        own = self._places.count(interest.key_id) if interest.key_id else 0
        if len(self._places) >= MAX_LISTENERS or own >= MAX_OF_A_KEY or self._is_closed:
            raise TooManyListeners
        self._places.append(interest.key_id)
        listener = Listener(interest, since)
        try:
            self._listeners.add(listener)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await listener.has_joined
            yield listener
        finally:
            self._places.remove(interest.key_id)
            self._listeners.discard(listener)
            if not self._listeners and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def close(self) -> None:
        """Let everybody go."""
        self._is_closed = True
        self._refuse(TooManyListeners())
        for listener in list(self._listeners):
            listener.tell(None)
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        """Look and tell until nobody listens; while the database is away, less often.

        Here too, between two looks, those who come are told what they missed: so nothing is stored in between.
        """
        look: _Look | None = None
        while self._listeners:
            try:
                async with self._backend.connection() as conn:
                    if look is None:
                        look = await _Look.begin(conn)
                    events = await look.again(conn)
                    await self._know_offers(conn, events)
                    self._tell(events)
                    await self._let_join(conn)
            except Exception as error:
                self._refuse(error)
                if not (isinstance(error, DatabaseAway) or is_retryable(error)):
                    quietly.error("live_failed", error=str(error), kind=type(error).__name__)
                await asyncio.sleep(RETRY_S)
                continue
            self.looks += 1
            await asyncio.sleep(POLL_S)

    def _tell(self, events: Iterable[Happened]) -> None:
        for event in events:
            for listener in self._listeners:
                if listener.has_joined.done():
                    listener.tell(event)

    def _coming(self) -> list[Listener]:
        return [one for one in self._listeners if not one.has_joined.done()]

    def _refuse(self, error: Exception) -> None:
        for listener in self._coming():
            listener.has_joined.set_exception(error)

    async def _let_join(self, conn: Connection) -> None:
        for listener in self._coming():
            if listener.since is not None:
                listener.catch_up(await self._missed(conn, listener.since))
            if not listener.has_joined.done():  # it may have gone meanwhile
                listener.has_joined.set_result(None)

    async def _missed(self, conn: Connection, since: Since) -> list[Happened]:
        now_ms = time.time_ns() // 1_000_000
        clicks = await newest_clicks(conn, since.click_ms, now_ms, MAX_ROWS)
        changes = await changes_after(conn, since.change_id, MAX_ROWS)
        events = _events(clicks, changes, since)
        await self._know_offers(conn, events)
        return events

    async def _know_offers(self, conn: Connection, events: Iterable[Happened]) -> None:
        """Say whose the offers of clicks were, by the catalog of each click; their rows do not."""
        clicks = [event.row for event in events if event.kind == "click"]
        asked = {(row["offer_id"], row["catalog_revision"]) for row in clicks}
        if len(self._owners) > MAX_OWNERS:
            self._owners = {}
        if unknown := asked - self._owners.keys():
            self._owners |= dict.fromkeys(unknown, 0) | await load_owners(conn, unknown)
        for row in clicks:
            row["advertiser_id"] = self._owners[row["offer_id"], row["catalog_revision"]]


class _Look:
    """Where the look-out is."""

    def __init__(self, marks: dict[Any, Mark], changes: Changes) -> None:
        self._marks = marks
        self._changes = changes
        self._started_id = changes.highest
        self._started_ms = time.time_ns() // 1_000_000

    @classmethod
    async def begin(cls, conn: Connection) -> "_Look":
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            floor, seen = await recent_changes(conn, LOOK_BACK)
            return cls(await read_marks(conn), Changes(floor, seen, time.monotonic()))

    async def again(self, conn: Connection) -> list[Happened]:
        """What is new, in the order of its time."""
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            marks = await read_marks(conn)
            clicks = await self._clicks(conn, marks)
            changes = await changes_after(conn, self._changes.floor, MAX_CHANGES)
        self._marks |= marks
        through_ms = max((mark.watermark_ms for mark in marks.values()), default=self._started_ms)
        new = self._changes.take(changes, time.monotonic())
        return _events(clicks, new, Since(max(self._started_id, self._changes.floor), through_ms))

    async def _clicks(self, conn: Connection, marks: dict[Any, Mark]) -> list[Row]:
        """Those which the journals' marks passed since the last look (L1)."""
        passed: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for journal_id, mark in marks.items():
            before = self._marks[journal_id].watermark_ms if journal_id in self._marks else self._started_ms
            if before < mark.watermark_ms:
                passed.setdefault(mark[:2], []).append((before, mark.watermark_ms))
        spans = [span for spans in passed.values() for span in spans]
        if not spans:
            return []
        rows = await newest_clicks(conn, min(span[0] for span in spans), max(span[1] for span in spans), MAX_ROWS)
        return [row for row in rows if _is_passed(row["click_id"].bytes, passed)]


def _is_passed(click_id: bytes, passed: dict[tuple[int, int], list[tuple[int, int]]]) -> bool:
    spans = passed.get((node_of(click_id), worker_of(click_id)), ())
    return any(before < ms_of(click_id) <= through for before, through in spans)


def _events(clicks: Iterable[Row], changes: Iterable[Row], since: Since) -> list[Happened]:
    """Clicks, then what became of conversions; each says where to go on after it."""
    events = []
    for row in clicks:
        since = since._replace(click_ms=max(since.click_ms, ms_of(row["click_id"].bytes)))
        events.append(Happened("click", row, str(since)))
    for row in changes:
        since = since._replace(change_id=max(since.change_id, row["change_id"]))
        events.append(Happened("conversion", row, str(since)))
    return events


_feeds: WeakKeyDictionary[Backend, LiveFeed] = WeakKeyDictionary()


def feed_of(backend: Backend) -> LiveFeed:
    """The feed of this process."""
    feed = _feeds.get(backend)
    if feed is None:
        feed = _feeds[backend] = LiveFeed(backend)
    return feed
