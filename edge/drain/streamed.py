"""The partitions of the stream that this drain owns, stored as its machine's own journals are.

`keep_leases` decides which they are, `advance` stores their next batch, `do_chores` asks again for what is missing and
has purged what all have stored.

W1  Memory runs ahead of Postgres only within a batch: whatever fails, the places are read again, and the stream from them on.
W2  What cannot be read is set aside once; what another release wrote is left for that one's drains, with all partitions.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog

from edge.counters import Counters, cell
from edge.drain.contents import Quarantined
from edge.drain.shipments import Key, OtherRelease, arrival_of, assemble, key_of, read_shipments
from edge.drain.storing import Store
from edge.drain.tap import Tap
from edge.logs import RateLimited
from edge.processes import Schedule
from edge.settings import Settings
from storage.postgres.connection import Connection
from storage.postgres.positions import PositionMoved
from storage.postgres.stream import (
    Marks,
    Place,
    forget_beyond,
    mark,
    read_places,
    read_sequences,
    refresh_watermarks,
    register,
    stalled,
    stored_everywhere,
    wanted_partitions,
)
from storage.postgres.stream_leases import Holding, count_unowned, leave, make_rows, share_out
from storage.stream.reading import ALL, Message, StreamReader
from storage.stream.servers import StreamAway
from storage.stream.shipments import Resend, Shipment

log = structlog.get_logger()
quietly = RateLimited(log, 60.0)

LEASE_S = 5.0
RENEW_EVERY_S = 1.0
REFRESH_EVERY_S = 0.25
ASK_EVERY_S = 2.0
STALLED_S = 30.0
"""A journal has a heartbeat a second in each partition: what has not moved for so long may have to be sent again."""
OTHER_RELEASE_PAUSE_S = 60.0
FETCH_WAIT_S = 0.02
MAX_WAITING_BYTES = 16 * 2**20

_REDELIVERED = cell("edge_stream_redelivered_total")
_GAPS = cell("edge_stream_gaps_total")
_ASKED = cell("edge_stream_resend_requests_total")
_OWNED = cell("edge_stream_partitions_owned")
_UNOWNED = cell("edge_stream_partitions_unowned")
_TAKEOVERS = cell("edge_stream_takeovers_total")
_PENDING = cell("edge_stream_pending_messages")
_BYTES = cell("edge_stream_bytes")
_MESSAGES = cell("edge_stream_messages")


class _Waiting(NamedTuple):
    """A message that has been read and not stored."""

    sequence: int
    content: tuple[Shipment, ...] | Quarantined | OtherRelease
    size_bytes: int


class Streamed:
    """What one drain process does for the stream. Nothing here raises because the stream is away."""

    def __init__(
        self, settings: Settings, store: Store, counters: Counters, name: str, *, lease_s: float = LEASE_S
    ) -> None:
        self.drain_id = uuid4()
        self._settings = settings
        self._store = store
        self._cells = counters.cells
        self._name = name
        self._lease_s = lease_s
        self._tap = Tap(settings, f"clickedge {name}", counters)
        self._holding = Holding((), 0, 0)
        self._read_by: StreamReader | None = None
        """Who reads the partitions held; None: to be begun anew."""
        self._waiting: deque[_Waiting] = deque()
        self._places: dict[Key, Place] = {}
        self._sequences: dict[int, int] = {}
        self._gaps: dict[Key, tuple[int, int]] = {}
        self._next = Schedule()
        self._stored: deque[tuple[float, str, int]] = deque()
        """Through which sequence all was stored when: what may be purged later."""
        self.is_behind = False
        """Whether more is waiting."""
        self.through_ms = 0
        """Unix milliseconds up to which the events of the partitions held are stored."""

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those that this drain holds."""
        return self._holding.partitions

    def forget_all(self) -> None:
        """The database is another, or was away: nothing known of it holds."""
        self._read_by = None
        self._next.pop("leases", None)

    async def keep_leases(self, conn: Connection) -> None:
        """Renew, claim and let go, each second; while the stream is away nothing is renewed, so that others take over."""
        renew_every_s = RENEW_EVERY_S * min(1.0, self._lease_s / LEASE_S)
        if await self._tap.look() is None or not self._next.is_due("leases", renew_every_s):
            return
        wanted = await wanted_partitions(conn, self._settings.stream_partitions)
        if wanted != self._holding.wanted:
            await make_rows(conn, wanted)
        holding = await share_out(conn, self.drain_id, self._name, wanted=wanted, lease_s=self._lease_s)
        if holding.partitions != self._holding.partitions:
            self._read_by = None
            if 0 not in holding.partitions:
                self._forget_measures()
            log.info("stream_partitions_held", partitions=list(holding.partitions), takeovers=holding.takeovers)
        self._holding = holding
        self._cells[_OWNED] = len(holding.partitions)
        self._cells[_TAKEOVERS] += holding.takeovers

    async def advance(self, conn: Connection) -> int:
        """Store the next batch of the partitions held; how many messages were read."""
        started_ms = time.time_ns() // 1_000_000
        self.is_behind = False
        await self.keep_leases(conn)
        reader = self._tap.reader
        if reader is None:
            return 0
        if not self.partitions:
            self.through_ms = started_ms
            return 0
        try:
            if self._read_by is not reader:
                await self._begin(conn, reader)
            batch = await self._fill(reader)
            if batch:
                await self._store_batch(conn, batch)
            await self._ask_for_gaps()
        except StreamAway as error:
            self._read_by = None
            await self._tap.drop(str(error))
            return 0
        except PositionMoved as error:
            # Another drain has taken over, or has just stored what this one was about to.
            self.forget_all()
            quietly.warning("stream_overtaken", error=str(error))
            return 0
        except OtherRelease as error:
            await self._stand_back(conn, error)
            return 0
        self.is_behind = bool(self._waiting) or reader.pending > 0
        self._cells[_PENDING] = reader.pending + len(self._waiting)
        if not self.is_behind:
            self.through_ms = started_ms
        return len(batch)

    async def refresh(self, conn: Connection) -> None:
        """Let the streamed journals' own rows follow, a few times a second."""
        if self._next.is_due("refresh", REFRESH_EVERY_S):
            await refresh_watermarks(conn)

    async def do_chores(self, conn: Connection) -> None:
        """Ask for what has stood still; the owner of partition 0 looks after the stream as a whole."""
        reader = self._tap.reader
        if reader is None or self._read_by is not reader:
            return
        try:
            if not self.is_behind:
                for journal_id, partition, place in await stalled(conn, self.partitions, STALLED_S):
                    await self._ask(journal_id, partition, place)
            if 0 in self.partitions:
                await self._look_after(conn, reader)
        except StreamAway as error:
            self._read_by = None
            await self._tap.drop(str(error))

    async def leave(self, conn: Connection) -> None:
        """Let go of all, so that others can go on at once."""
        self._holding = Holding((), 0, 0)
        self._read_by = None
        self._forget_measures()
        await leave(conn, self.drain_id)

    async def close(self) -> None:
        """Let go of the stream."""
        self._cells[_OWNED] = self._cells[_PENDING] = 0
        self._forget_measures()
        await self._tap.close()

    async def _begin(self, conn: Connection, reader: StreamReader) -> None:
        """From where the partitions held are stored."""
        self._waiting.clear()
        self._places.clear()
        self._gaps.clear()
        await forget_beyond(conn, self._tap.stream, self.partitions, (await reader.state()).last_sequence)
        self._sequences = await read_sequences(conn, self._tap.stream, self.partitions)
        await reader.open(self.partitions, min(self._sequences.values()))
        self._read_by = reader
        self._tap.is_well()

    async def _fill(self, reader: StreamReader) -> list[_Waiting]:
        """The next batch: as many messages as make up its rows, or those that there are now."""
        batch: list[_Waiting] = []
        rows = size_bytes = 0
        enough_s = time.monotonic() + self._settings.batch_interval_ms / 1000
        while rows < self._settings.batch_rows and size_bytes < MAX_WAITING_BYTES:
            if not self._waiting:
                # More is always on its way: who waits for all of it never stores anything.
                is_all = batch and (not reader.pending or time.monotonic() > enough_s)
                if is_all or not await self._read_on(reader):
                    break
            content = self._waiting[0].content
            if isinstance(content, OtherRelease):
                if batch:
                    break
                raise content
            one = self._waiting.popleft()
            batch.append(one)
            rows += 1 if isinstance(content, Quarantined) else max(1, sum(len(shipment.entries) for shipment in content))
            size_bytes += one.size_bytes
        return batch

    async def _read_on(self, reader: StreamReader) -> bool:
        """Fetch some messages; whether there were any. Those of partitions that are stored further are left out (T2)."""
        while not self._waiting and (messages := await reader.take(FETCH_WAIT_S)):
            self._waiting += [
                _Waiting(one.sequence, _content_of(one, behind), len(one.data))
                for one in messages
                if (behind := _behind(one, self._sequences))
            ]
        return bool(self._waiting)

    async def _store_batch(self, conn: Connection, batch: list[_Waiting]) -> None:
        shipments: list[Shipment] = []
        unreadable: list[Quarantined] = []
        for content in (one.content for one in batch):
            if isinstance(content, Quarantined):
                unreadable.append(content)
            elif not isinstance(content, OtherRelease):
                shipments += content
        await self._learn(conn, shipments)
        if unreadable:
            await self._store.set_aside(conn, unreadable)
        assembled = assemble(shipments, self._places)
        marks = Marks(self.drain_id, self._tap.stream, dict.fromkeys(self._sequences, batch[-1].sequence))
        if assembled.pieces:
            await self._store.store(conn, assembled.pieces, marks=marks)
            self.through_ms = min(piece.watermark_ms or 0 for piece in assembled.pieces)
        else:
            await mark(conn, marks)
        for piece in assembled.pieces:
            self._places[piece.journal_id, piece.partition or 0] = Place(*piece.after, piece.is_last)
        self._cells[_REDELIVERED] += assembled.redelivered
        self._note_gaps(assembled.gaps)

    async def _learn(self, conn: Connection, shipments: list[Shipment]) -> None:
        """How far journals are stored that were not in an earlier batch; T1 for those that nobody knows."""
        unknown = {key_of(one): arrival_of(one) for one in shipments if key_of(one) not in self._places}
        if not unknown:
            return
        journals = {journal_id for journal_id, _ in unknown}
        found = await read_places(conn, journals)
        if missing := [arrival for key, arrival in unknown.items() if key not in found]:
            await register(conn, missing)
            found = await read_places(conn, journals)
        self._places.update((key, place) for key, place in found.items() if key[1] in self._sequences)

    def _note_gaps(self, gaps: dict[Key, tuple[int, int]]) -> None:
        self._cells[_GAPS] += len(gaps)
        for key, place in gaps.items():
            self._gaps[key] = max(place, self._gaps.get(key, place))
        for key in [key for key, place in self._gaps.items() if self._places[key][:2] >= place]:
            del self._gaps[key]
            self._next.pop(f"ask {key[0]} {key[1]}", None)

    async def _ask_for_gaps(self) -> None:
        for journal_id, partition in list(self._gaps):
            if self._next.is_due(f"ask {journal_id} {partition}", ASK_EVERY_S):
                await self._ask(journal_id, partition, self._places[journal_id, partition][:2])

    async def _ask(self, journal_id: UUID, partition: int, place: tuple[int, int]) -> None:
        self._cells[_ASKED] += 1
        quietly.warning("stream_resend_asked", journal=journal_id.hex, partition=partition, place=place)
        await self._tap.ask(Resend(journal_id.bytes, partition, place))

    async def _stand_back(self, conn: Connection, error: OtherRelease) -> None:
        """W2: a drain of that release takes the partitions; this one looks again in a while, if there is none."""
        log.critical("stream_other_release", error=str(error), hint="start drains of the release that the shippers have")
        await self.leave(conn)
        self._next["leases"] = time.monotonic() + OTHER_RELEASE_PAUSE_S

    async def _look_after(self, conn: Connection, reader: StreamReader) -> None:
        """Purge what all have stored long enough ago, and measure."""
        now_s, wanted = time.monotonic(), self._holding.wanted
        stored = await stored_everywhere(conn, self._tap.stream, wanted)
        self._stored.append((now_s, self._tap.stream, stored))
        through = 0
        while self._stored and self._stored[0][0] + self._settings.stream_keep_s <= now_s:
            _, stream, sequence = self._stored.popleft()
            # A database that was restored meanwhile may have less, and more partitions may be wanted by now.
            through = min(sequence, stored) if stream == self._tap.stream else 0
        if through:
            await reader.purge(through)
        state = await reader.state()
        self._cells[_BYTES], self._cells[_MESSAGES] = state.size_bytes, state.messages
        self._cells[_UNOWNED] = await count_unowned(conn, wanted)

    def _forget_measures(self) -> None:
        """Another drain looks after the stream now."""
        self._cells[_BYTES] = self._cells[_MESSAGES] = self._cells[_UNOWNED] = 0


def _behind(message: Message, sequences: Mapping[int, int]) -> list[int]:
    """Of the partitions that a message is for, those held that are not stored so far (T2)."""
    partitions = sequences if message.partition == ALL else (message.partition,)
    return [number for number in partitions if sequences.get(number, message.sequence) < message.sequence]


def _content_of(message: Message, held: list[int]) -> tuple[Shipment, ...] | Quarantined | OtherRelease:
    try:
        return read_shipments(message.data, message.partition, held)
    except OtherRelease as error:
        return error
    except ValueError as error:
        place = f"partition {message.partition} of the stream"
        return Quarantined(UUID(int=0), 0, message.sequence, f"{place}: {error}"[:1000], message.data)
