"""Unique clicks where a node has several drains: a visitor's clicks may lie in the journals of two of them.

Each drain remembers the visits of all. It decides by what it knows, and looks once more before it commits: if another
drain has stored a visit meanwhile by which a click of this batch is no longer the first, the batch is done again.
U1 to U3 of uniques.py hold for the node as for one drain; V1 and V2: storage/postgres/visits.py.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from edge.counters import Counters
from edge.drain.uniques import Overtaken, Uniques
from edge.settings import Settings
from storage.journal.events import Session
from storage.postgres.connection import Connection
from storage.postgres.visits import EVERYWHERE, Visit, add_batch, forget_batches, last_batch, lock_visits, newer_batches

KEPT = timedelta(minutes=10)
"""Many times the interval of the drains' chores, in which each catches up."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Visit]).decode


class SharedUniques(Uniques):
    """The visits of this node's last hours, as one of its drains knows them."""

    def __init__(self, settings: Settings, counters: Counters, slot: int, *, is_everywhere: bool = False) -> None:
        """`slot`: another for each drain; `is_everywhere`: the drains of all nodes share the visits of all."""
        super().__init__(settings, counters)
        if is_everywhere:
            self._node_id = EVERYWHERE
        self._slot = slot
        self._seq = 0
        """The last row of `visit_batches` that is in this memory."""
        self._visits: list[Visit] = []
        self._firsts: set[int] = set()
        """Of this batch's visits: all, and the keys of those that are a visitor's first."""

    def doubt(self) -> None:
        """Other drains may have gone on with a database that this one did not see."""
        self.forget_all()

    async def begin(self, conn: Connection, click_ids: Sequence[bytes]) -> None:
        """As for a single drain."""
        self._visits, self._firsts = [], set()
        await super().begin(conn, click_ids)

    def is_repeat(self, session: Session, visitor: bytes) -> bool:
        """As for a single drain."""
        is_repeat = super().is_repeat(session, visitor)
        visit = (session.offer_id, session.aff_id, visitor, session.click_id)
        self._visits.append(visit)
        if not is_repeat:
            self._firsts.update(_keys(visit))
        return is_repeat

    def retract(self, click_id: bytes) -> None:
        """As for a single drain."""
        super().retract(click_id)
        if self._visits and self._visits[-1][3] == click_id:
            self._visits.pop()

    async def agree(self, conn: Connection) -> None:
        """Within the batch's transaction: Overtaken if a first visit is none any more; else the others will know of it."""
        if not self._visits:
            return
        await lock_visits(conn, self._node_id)
        for batch in await newer_batches(conn, self._node_id, self._seq, self._slot):
            if any(not self._firsts.isdisjoint(_keys(visit)) for visit in self._of_others(batch.visits)):
                raise Overtaken
        await add_batch(conn, self._node_id, self._slot, _encode(self._visits))

    async def tidy(self, conn: Connection) -> None:
        """Between batches: take in what others have stored, so that old rows can go."""
        self._current.take_back(self._undo)
        if self._is_loaded:
            await self._catch_up(conn)
        await forget_batches(conn, self._node_id, datetime.now(UTC) - KEPT)

    async def _refresh(self, conn: Connection, first_ms: int) -> None:
        if self._is_loaded:
            await self._catch_up(conn)
        await super()._refresh(conn, first_ms)

    async def _load(self, conn: Connection, first_ms: int) -> None:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            self._seq = await last_batch(conn, self._node_id)
            await super()._load(conn, first_ms)

    async def _catch_up(self, conn: Connection) -> None:
        for batch in await newer_batches(conn, self._node_id, self._seq, self._slot):
            if batch.seq != self._seq + 1:
                self.forget_all()
                return
            self._take(self._of_others(batch.visits))
            self._seq = batch.seq

    def _of_others(self, visits: bytes) -> list[Visit]:
        return _decode(visits) if visits else []


def _keys(visit: Visit) -> tuple[int, int]:
    offer_id, aff_id, visitor, click_id = visit
    return hash((offer_id, aff_id, visitor)), hash((offer_id, aff_id, click_id))
