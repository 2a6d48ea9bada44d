"""One batch of pieces of journals into Postgres, in one transaction that begins with the journals' positions.

What the data itself makes impossible is cut out by bisection and quarantined; everything else is tried again. Rows are
made in `rows`, verdicts in `settlement`; what waited for its click or its time is decided here too (`settle_due`,
`settle_overtaken`).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, get_args
from uuid import UUID

import msgspec
import structlog

from edge.counters import Counters, cell
from edge.drain.at_hand import Chained
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import store_settled
from edge.drain.contents import Contents, Piece, Quarantined, Touch, quarantined
from edge.drain.erased import ErasedTouches, Erasures, remember_touches
from edge.drain.external_ids import external_ids_of
from edge.drain.matching import Received, received_again
from edge.drain.rows import RowMaker
from edge.drain.settle import Decided, Settled
from edge.drain.settlement import Settlement
from edge.drain.tally import count_verdict
from edge.drain.uniques import Overtaken, Uniques
from edge.logs import RateLimited
from edge.metric_families import BATCH_BUCKETS_US
from edge.settings import Settings
from edge.tracking.changes import Kind
from edge.tracking.click_id import ms_of, sequence_of
from edge.tracking.sessions import Sessions
from storage.journal.events import (
    Click,
    Session,
    encode,
)
from storage.postgres.connection import Connection, is_missing_partition, is_poison
from storage.postgres.contacts import Sightings
from storage.postgres.conversions import (
    Recalled,
    decided_clicks,
    recall_due,
    recall_for_clicks,
    recall_for_external_ids,
    recall_one,
)
from storage.postgres.copy import TouchRow, Uuid, quarantine
from storage.postgres.external_ids import awaited_external_ids, remember_external_ids
from storage.postgres.partitions import Partitions, day_of_id
from storage.postgres.positions import advance
from storage.postgres.sessions import find_sessions
from storage.postgres.stats import Deltas
from storage.postgres.stream import Marks, mark
from storage.postgres.touch_copy import copy_rows

quietly = RateLimited(structlog.get_logger(), 5.0)

DUE_LIMIT = 500

_BATCH = cell("edge_drain_batch_seconds")
_STORED = {
    table: cell("edge_drain_rows_total", table)
    for table in ("clicks", "impressions", "conversions", "conversions_waiting", "quarantine")
}
_ERASED = {f"{kind}s": cell("edge_events_erased_total", kind) for kind in ("click", "impression", "conversion")}
_CHANGED = {kind: cell("edge_conversion_changes_total", kind) for kind in get_args(Kind)}


class Store:
    """Stores the batches of one drain."""

    def __init__(
        self,
        rows: RowMaker,
        settings: Settings,
        history: CatalogHistory,
        sessions: Sessions[bytes],
        uniques: Uniques,
        counters: Counters,
    ) -> None:
        self._rows = rows
        self._uniques = uniques
        self._settlement = Settlement(rows, settings, history)
        self._history = history
        self._sessions = sessions
        self._counters = counters
        self.partitions = Partitions()
        self.erasures = Erasures(settings.secrets)
        self._has_recalled = False
        """Whether the batch tried last took back conversions that waited for its clicks."""
        self.watermark_ms = 0
        """Through which millisecond the journal of the last batch's last piece is stored."""

    async def store(
        self, conn: Connection, pieces: Sequence[Piece], *, marks: Marks | None = None, recalls: bool = True
    ) -> None:
        """Store the pieces and move their journals from where each begins to where it ends, all or none of them.

        `marks`: how far a stream is stored with them. PositionMoved: somebody else stored one of the pieces.
        """
        try:
            await self._store_at_once(conn, pieces, marks, recalls=recalls)
        except Overtaken:
            await self.store(conn, pieces, marks=marks, recalls=recalls)
        except Exception as error:
            if is_missing_partition(error):
                self.partitions.forget()
            if not is_poison(error) or conn.is_closed() or not any(piece.entries for piece in pieces):
                raise
            if len(pieces) == len(pieces[0].entries) == 1:
                if self._has_recalled:  # what waited for this click may be at fault: the click without it
                    await self.store(conn, pieces, marks=marks, recalls=False)
                else:
                    await self._quarantine(conn, pieces[0], error, marks)
                return
            first, second = _halves(pieces)
            await self.store(conn, first)
            await self.store(conn, second, marks=marks)

    async def settle_due(self, conn: Connection, limit: int = DUE_LIMIT) -> int:
        """Decide the conversions that need wait no longer; how many there were. One that cannot be is quarantined."""
        recalled: list[Recalled] = []
        try:
            async with conn.transaction():
                await self.erasures.hold(conn)
                recalled = await recall_due(conn, limit)
                settled, decided = await self._settle_recalled(conn, recalled)
        except Exception as error:
            if not is_poison(error) or conn.is_closed():
                raise
            if limit > 1:
                return await self.settle_due(conn, limit // 2)
            for one in recalled:
                await self._settle_singly(conn, one.conversion_id)
            return 1
        self._count(settled, decided)
        return len(recalled)

    async def settle_overtaken(self, conn: Connection, since: datetime) -> None:
        """Decide anew those called unknown_click since then whose click another drain was storing at that moment.

        And all that wait for an id which was brought in by other means since, from another network.
        """
        candidates = [click_id.bytes for click_id in await decided_clicks(conn, since)]
        awaited = await awaited_external_ids(conn)
        ids = {*candidates, *awaited.values()}
        found = {*await find_sessions(conn, ids), *await find_sessions(conn, ids, "impressions")}
        external_ids = [external_id for external_id, click_id in awaited.items() if click_id in found]
        if not found:
            return
        recalled: list[Recalled] = []
        try:
            async with conn.transaction():
                await self.erasures.hold(conn)
                recalled = await recall_for_clicks(conn, map(Uuid, found))
                recalled += await recall_for_external_ids(conn, external_ids)
                settled, decided = await self._settle_recalled(conn, recalled)
        except Exception as error:
            if not is_poison(error) or conn.is_closed():
                raise
            for one in recalled:
                await self._settle_singly(conn, one.conversion_id)
            return
        self._count(settled, decided)

    async def _settle_singly(self, conn: Connection, conversion_id: UUID) -> None:
        """Decide a waiting conversion, or quarantine it: nothing may keep the drain from its journals."""
        try:
            async with conn.transaction():
                await self.erasures.hold(conn)
                settled, decided = await self._settle_recalled(conn, await recall_one(conn, conversion_id))
        except Exception as error:
            if not is_poison(error) or conn.is_closed():
                raise
            async with conn.transaction():
                for one in await recall_one(conn, conversion_id):
                    await self._set_aside(conn, one, error)
            return
        self._count(settled, decided)

    async def _settle_recalled(self, conn: Connection, recalled: Sequence[Recalled]) -> tuple[Settled, list[Decided]]:
        again = await self._receive_again(conn, recalled)
        settled, decided = await self._settle(conn, again, {}, Deltas(), {}, may_wait=False)
        await self._write(conn, settled, Deltas())
        return settled, decided

    async def _settle(
        self, conn: Connection, received: Sequence[Received], at_hand: dict[bytes, Session], touches: Deltas,
        erased: ErasedTouches, *, may_wait: bool = True,
    ) -> tuple[Settled, list[Decided]]:  # fmt: skip
        """Settle conversions, those of erased people without their names; the erasures are held."""
        received, hidden = await self.erasures.conversions(conn, received, erased)
        self._settlement.may_be_masked = self.erasures.latest_ms > 0
        known = Chained(at_hand, self._sessions, hidden)
        return await self._settlement.settle(conn, received, known, touches, may_wait=may_wait)

    async def _store_at_once(
        self,
        conn: Connection,
        pieces: Sequence[Piece],
        marks: Marks | None,
        *,
        recalls: bool,
    ) -> None:
        self._has_recalled = False
        started_ns = time.perf_counter_ns()
        contents = Contents(pieces)
        await self.partitions.ensure(conn, map(day_of_id, contents.id_by_day.values()))
        click_ids = [session.click_id for _, session, *_ in contents.clicks]
        await self._uniques.begin(conn, click_ids if len(pieces) == 1 else sorted(click_ids))
        async with conn.transaction():
            await advance(conn, contents.moves)
            if marks:
                await mark(conn, marks)
            await self.erasures.hold(conn)
            touches = [session for _, session, *_ in (*contents.clicks, *contents.impressions)]
            erased = await self.erasures.touches(conn, touches)
            await self._history.load(conn, contents.revisions)
            deltas, contacts = Deltas(), Sightings()
            making = _Making(contents.quarantined, erased, deltas, contacts)
            clicks = await self._copy(conn, "clicks", contents.clicks, making)
            await self._uniques.agree(conn)
            impressions = await self._copy(conn, "impressions", contents.impressions, making)
            await quarantine(conn, contents.quarantined)
            # Clicks only, as the look-up does: no verdict may depend on what this process happens to remember.
            at_hand = {session.click_id: session for _, session, *_ in contents.clicks}
            received = contents.conversions
            external_ids = external_ids_of(one for one, session, *_ in contents.clicks if session.click_id not in erased)
            await remember_external_ids(conn, external_ids)
            if (clicks or impressions) and recalls:
                recalled = await recall_for_clicks(conn, [*clicks, *impressions])
                recalled += await recall_for_external_ids(conn, list(external_ids))
                self._has_recalled = bool(recalled)
                received = [*await self._receive_again(conn, recalled), *received]
            settled, decided = await self._settle(conn, received, at_hand, deltas, erased)
            settled.contacts.merge(contacts)
            await remember_touches(conn, erased)
            await self._write(conn, settled, deltas)
        self._uniques.commit()
        self.watermark_ms = contents.watermark_ms
        for click_id, session in at_hand.items():
            self._sessions.put(click_id, encode(session))
        self._count(settled, decided)
        cells = self._counters.cells
        for table, ids in (("clicks", clicks), ("impressions", impressions)):
            gone = sum(one.bytes in erased for one in ids)
            cells[_STORED[table]] += len(ids) - gone
            cells[_ERASED[table]] += gone
        self._report(contents.quarantined)
        self._counters.observe(_BATCH, BATCH_BUCKETS_US, (time.perf_counter_ns() - started_ns) // 1000)

    async def _copy(self, conn: Connection, table: str, touches: Sequence[Touch], making: "_Making") -> list[Uuid]:
        """Store the rows of `touches` that are not erased; the ids of all. Those of which no row can be made fail."""
        ids: list[Uuid] = []
        if touches:
            # Made one by one as COPY asks for them, so that a batch's rows are never all in memory; no faster than a list.
            await copy_rows(conn, table, self._make_rows(touches, ids, making))
        return ids

    def _make_rows(self, touches: Iterable[Touch], ids: list[Uuid], making: "_Making") -> Iterator[TouchRow]:
        erased = making.erased
        for event, session, record, journal_id in touches:
            try:
                row = self._rows.touch_row(event, session, self._history.at(session.revision), making.deltas)
            except (ValueError, ArithmeticError) as error:
                one = quarantined(journal_id, record, error)
                making.failed.append(one._replace(error="erased", raw=b"") if session.click_id in erased else one)
                self._uniques.retract(session.click_id)
                continue
            ids.append(row.click_id)
            if session.click_id in erased:
                continue
            if row.contact_id:
                is_click = isinstance(event, Click)
                making.contacts.see(row.contact_id, row.clicked_at, row.click_id if is_click else None)
            yield row

    async def _receive_again(self, conn: Connection, recalled: Sequence[Recalled]) -> list[Received]:
        """Waiting conversions, decoded, in the order in which they came, whatever order their rows have come to lie in.

        One that another release wrote in another form is quarantined alone.
        """
        received = []
        for one in sorted(recalled, key=lambda one: one.conversion_id):
            try:
                received.append(received_again(one))
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                await self._set_aside(conn, one, error)
        return received

    async def _set_aside(self, conn: Connection, one: Recalled, error: BaseException) -> None:
        # It has no place in a journal any more: segment 0, and a number that only its own id has within a journal.
        conversion_id = one.conversion_id.bytes
        place = ms_of(conversion_id) << 12 | sequence_of(conversion_id)
        row = Quarantined(one.journal_id, 0, place, f"waiting conversion: {type(error).__name__}: {error}"[:1000], one.event)
        await quarantine(conn, [row])
        self._report([row])

    async def _write(self, conn: Connection, settled: Settled, deltas: Deltas) -> None:
        await store_settled(conn, settled, deltas)

    async def _quarantine(self, conn: Connection, piece: Piece, error: BaseException, marks: Marks | None) -> None:
        """Set the one entry of `piece` aside instead of storing it."""
        row = quarantined(piece.journal_id, piece.entries[0], error)
        async with conn.transaction():
            await advance(conn, [piece.move(0)])
            if marks:
                await mark(conn, marks)
            await quarantine(conn, [row])
        self._report([row])

    async def set_aside(self, conn: Connection, rows: Sequence[Quarantined]) -> None:
        """Keep what came and is no part of any journal."""
        await quarantine(conn, rows)
        self._report(rows)

    def _report(self, rows: Sequence[Quarantined]) -> None:
        self._counters.cells[_STORED["quarantine"]] += len(rows)
        for row in rows:
            quietly.error("record_quarantined", journal=row.journal_id.hex, segment=row.segment, error=row.error)

    def _count(self, settled: Settled, decided: Sequence[Decided]) -> None:
        cells = self._counters.cells
        cells[_STORED["conversions"]] += len(settled.new)
        cells[_STORED["conversions_waiting"]] += len(settled.waiting)
        for one in decided:
            count_verdict(self._counters, one.verdict)
            cells[_ERASED["conversions"]] += one.received.is_erased
        for change in settled.changes:
            if change.kind != "decided":
                cells[_CHANGED[change.kind]] += 1


def _halves(pieces: Sequence[Piece]) -> tuple[Sequence[Piece], Sequence[Piece]]:
    """Fewer pieces, or two halves of the only one."""
    if len(pieces) == 1:
        first, second = pieces[0].halves()
        return [first], [second]
    middle = len(pieces) // 2
    return pieces[:middle], pieces[middle:]


class _Making(NamedTuple):
    """What comes of making a batch's rows, besides them. `failed`: of which no row can be made."""

    failed: list[Quarantined]
    erased: ErasedTouches
    deltas: Deltas
    contacts: Sightings
