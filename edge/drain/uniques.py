"""Which clicks are a visitor's second of an offer and partner within `EDGE_UNIQUE_HOURS`: a bounded memory of visits.

A visit is remembered under its visitor and under its own click id: who comes the first time has no cookie, and is known
by address and user agent; who comes again has one, whose first id is that first click. Two people behind one address
with the same browser are told apart as soon as both have their cookies.

U1  What a batch adds is taken back unless its transaction commits. After a connection is lost all is read from `clicks`
    again, unless no batch was open and the last one stored is still there (the database may be a restored one).
U2  An entry stays for one to two windows: there are two generations, and the older goes as a whole.
U3  Clicks may come out of order, by a window at most: one is a duplicate if another within the window, before or after,
    was stored first.
"""

from array import array
from collections.abc import Sequence

from edge.counters import Counters, cell
from edge.drain.rows import INVALID_FLAGS
from edge.settings import Settings
from edge.tracking.click_id import ms_of
from storage.journal.events import Session
from storage.postgres.connection import Connection
from storage.postgres.visits import Visit, is_stored, read_visits, stored_through

HOUR_MS = 3_600_000
ENTRIES_A_CLICK = 2
FIRST_SLOTS = 1 << 16
MAX_LOAD = 0.6

_HELD = cell("edge_visits_held")
_FORGOTTEN = cell("edge_visits_forgotten_total")


class Overtaken(Exception):
    """Another drain has stored a visit by which this batch's verdicts are no longer right: do it again."""


class Generation:
    """Keys (64 bits) and when each was last seen: one flat array with open addressing, 16 bytes a slot.

    27 to 53 bytes an entry, and about 2 us for a click's two; a dict takes 112 and 1.9 (2 shared Xeon cores, 2026-11-22).
    """

    __slots__ = ("_cells", "_mask", "limit", "started_ms", "used")

    def __init__(self, slots: int, started_ms: int) -> None:
        self._cells = array("q", bytes(16)) * slots
        self._mask = 2 * slots - 2
        self.started_ms = started_ms
        self.used = 0
        self.limit = int(slots * MAX_LOAD)

    def see(self, key: int, ms: int, undo: list[int]) -> int:
        """Note `key` at `ms`; when it was last seen before, 0 for never. `undo` learns what `take_back` needs."""
        cells, mask = self._cells, self._mask
        slot = key & mask
        while found := cells[slot]:
            if found == key:
                before = cells[slot + 1]
                if ms > before:
                    cells[slot + 1] = ms
                    undo += (slot, before)
                return before
            slot = (slot + 2) & mask
        cells[slot] = key
        cells[slot + 1] = ms
        self.used += 1
        undo += (slot, 0)
        return 0

    def last_seen(self, key: int) -> int:
        """When `key` was last seen, 0 for never."""
        cells, mask = self._cells, self._mask
        slot = key & mask
        while found := cells[slot]:
            if found == key:
                return cells[slot + 1]
            slot = (slot + 2) & mask
        return 0

    def take_back(self, undo: list[int], length: int = 0) -> None:
        """Undo, last first, what `see` noted since `undo` was of that length."""
        cells = self._cells
        while len(undo) > length:
            before, slot = undo.pop(), undo.pop()
            cells[slot + 1] = before
            if not before:
                cells[slot] = 0
                self.used -= 1

    def grown(self, slots: int) -> "Generation":
        """The same in so many slots."""
        larger = Generation(slots, self.started_ms)
        cells, ignored = self._cells, list[int]()
        for slot in range(0, len(cells), 2):
            if cells[slot]:
                larger.see(cells[slot], cells[slot + 1], ignored)
                ignored.clear()
        return larger


class Uniques:
    """The visits of this node's last hours, as one drain knows them. Outside a batch nothing is half done."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._node_id = settings.node_id
        self._window_ms = settings.unique_hours * HOUR_MS
        self._capacity = settings.unique_capacity // 2
        self._cells = counters.cells
        self._is_loaded = self._is_sure = False
        self._stored_id = b""
        """A click of the last batch that was stored."""
        self._undo: list[int] = []
        self._last = (b"", 0)
        """The click that was asked about last, and how long `_undo` was before."""
        self._current, self._older = Generation(FIRST_SLOTS, 0), Generation(FIRST_SLOTS, 0)

    @property
    def is_on(self) -> bool:
        """Off with `EDGE_UNIQUE_HOURS=0`: then no click is a duplicate, and nothing is remembered."""
        return self._window_ms > 0

    def forget_all(self) -> None:
        """Read all anew before the next batch."""
        self._is_loaded = False

    def doubt(self) -> None:
        """The connection is another: what an open batch came to is not known. To be called before the next batch."""
        self._is_sure = False
        self._is_loaded = self._is_loaded and not self._undo

    async def begin(self, conn: Connection, click_ids: Sequence[bytes]) -> None:
        """A batch with clicks of these ids, in order, is about to be stored; what one before it added is taken back."""
        self._current.take_back(self._undo)
        if not self.is_on or not click_ids:
            return
        await self._refresh(conn, ms_of(click_ids[0]))
        self._make_room(len(click_ids), ms_of(click_ids[-1]))

    def is_repeat(self, session: Session, visitor: bytes) -> bool:
        """Whether the visitor of this click, which is no bot's, came within the window before. Now it did."""
        click_id, offer_id, aff_id = session.click_id, session.offer_id, session.aff_id
        undo = self._undo
        self._last = (click_id, len(undo))
        return self._note(offer_id, aff_id, visitor, click_id, undo)

    def retract(self, click_id: bytes) -> None:
        """This click will not be stored after all."""
        if self._last[0] == click_id:
            self._current.take_back(self._undo, self._last[1])

    async def agree(self, conn: Connection) -> None:
        """Within the batch's transaction, once its clicks were asked about. A single drain has nobody to agree with."""

    async def tidy(self, conn: Connection) -> None:
        """Now and then, between batches."""

    def commit(self) -> None:
        """The batch is stored."""
        if self._undo:
            self._stored_id = self._last[0]
        self._undo.clear()
        self._cells[_HELD] = self._current.used + self._older.used

    def _note(self, offer_id: int, aff_id: int, visitor: bytes, click_id: bytes, undo: list[int]) -> bool:
        # Python's own hash: keyed for each process, and a visitor is unpredictable to begin with.
        ms, see = ms_of(click_id), self._current.see
        followed_ms = see(hash((offer_id, aff_id, click_id)), ms, undo)
        key = hash((offer_id, aff_id, visitor))
        seen_ms = see(key, ms, undo)
        if not seen_ms:
            seen_ms = self._older.last_seen(key)
            if seen_ms > ms:
                see(key, seen_ms, undo)
        if followed_ms:  # a click that came with this one's cookie is stored already
            seen_ms = max(seen_ms, followed_ms)
        return seen_ms > 0 and abs(ms - seen_ms) <= self._window_ms

    async def _refresh(self, conn: Connection, first_ms: int) -> None:
        if not self._is_loaded or not (self._is_sure or await is_stored(conn, self._stored_id)):
            await self._load(conn, first_ms)
        self._is_sure = True

    async def _load(self, conn: Connection, first_ms: int) -> None:
        """Read a window back from the oldest click that may still come, two at most."""
        self._current, self._older = Generation(FIRST_SLOTS, 0), Generation(FIRST_SLOTS, 0)
        furthest_ms, behind_ms = await stored_through(conn, self._node_id)
        oldest_ms = max(min(first_ms, behind_ms), furthest_ms - self._window_ms)
        await read_visits(conn, self._node_id, oldest_ms - self._window_ms, sorted(INVALID_FLAGS), self._take)
        self._is_loaded = True

    def _take(self, visits: list[Visit]) -> None:
        """Visits that are stored."""
        if visits:
            self._make_room(len(visits), ms_of(visits[-1][3]))
            for visit in visits:
                self._note(*visit, self._undo)
            self._undo.clear()

    def _make_room(self, clicks: int, now_ms: int) -> None:
        """Before clicks are noted: a new generation when the window is over or this one is full, more slots otherwise."""
        current = self._current
        needed = current.used + clicks * ENTRIES_A_CLICK
        is_over, is_full = now_ms - current.started_ms > self._window_ms, needed > self._capacity
        if is_over or (is_full and current.used):
            if not is_over:
                self._cells[_FORGOTTEN] += self._older.used
            self._older = current
            self._current = Generation(_slots_for(max(current.used, clicks * ENTRIES_A_CLICK)), now_ms)
        elif needed > current.limit:
            self._current = current.grown(_slots_for(needed))


def _slots_for(entries: int) -> int:
    return max(FIRST_SLOTS, 1 << int(entries / MAX_LOAD).bit_length())
