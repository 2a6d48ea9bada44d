"""A batch of pieces of journals, decoded: their events by kind, and what is no event."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from edge.drain.matching import Received
from edge.tracking.click_id import ms_of
from storage.journal.events import Click, Conversion, Event, Heartbeat, Impression, Session, decode
from storage.journal.framing import Record
from storage.journal.reader import Damaged
from storage.postgres.positions import Move

Entry = Record | Damaged
Touch = tuple[Click | Impression, Session, Record, UUID]
"""With the record that it came in, and the journal."""
Place = tuple[int, int]
DAY_MS = 86_400_000


class Piece(NamedTuple):
    """A stretch of one journal: what is to be stored, and from where to where its position moves."""

    journal_id: UUID
    before: Place
    entries: Sequence[Entry]
    after: Place
    partition: int | None = None
    """Of a stream, for a journal that comes through one."""
    watermark_ms: int | None = None
    """None: what the entries say."""
    is_last: bool = False
    """Nothing of this journal and partition follows."""

    def halves(self) -> tuple["Piece", "Piece"]:
        """The same in two. Only with the second is the watermark reached."""
        middle = len(self.entries) // 2
        between = _end_of(self.entries[middle - 1])
        watermark_ms = None if self.watermark_ms is None else 0
        first = self._replace(
            entries=self.entries[:middle], after=between, watermark_ms=watermark_ms, is_last=False
        )
        return first, self._replace(before=between, entries=self.entries[middle:])

    def move(self, watermark_ms: int) -> Move:
        """What becomes of its position; `watermark_ms`: what the entries say."""
        known_ms = watermark_ms if self.watermark_ms is None else self.watermark_ms
        return Move(self.journal_id, self.partition, self.before, self.after, known_ms, self.is_last)


class Quarantined(NamedTuple):
    """What cannot be stored as what it says it is."""

    journal_id: UUID
    segment: int
    byte_offset: int
    error: str
    raw: bytes


class Contents:
    """A batch, decoded: what it holds of each kind."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.clicks: list[Touch] = []
        self.impressions: list[Touch] = []
        self.conversions: list[Received] = []
        self.quarantined: list[Quarantined] = []
        self.watermark_ms = 0
        """Of the last piece."""
        self.revisions: set[int] = set()
        self.id_by_day: dict[int, bytes] = {}
        """One click id for each day (since 1970) that the batch has ids of."""
        self.moves = [piece.move(self._take_all(piece.journal_id, piece.entries)) for piece in pieces]

    def _take_all(self, journal_id: UUID, entries: Sequence[Entry]) -> int:
        """Take the entries of one piece; through which millisecond they are all of their journal."""
        self.watermark_ms = 0
        for entry in entries:
            if isinstance(entry, Damaged):
                self.quarantined.append(
                    Quarantined(journal_id, entry.segment, entry.byte_offset, entry.error, entry.raw)
                )
                continue
            try:
                self._take(journal_id, entry, decode(entry.payload))
            except (msgspec.MsgspecError, ValueError) as error:
                self.quarantined.append(quarantined(journal_id, entry, error))
        return self.watermark_ms

    def _take(self, journal_id: UUID, record: Record, event: Event) -> None:
        if isinstance(event, Heartbeat):
            ms = event.ms
        elif isinstance(event, Conversion):
            ms = ms_of(event.conversion_id)
            self.conversions.append(Received(event, record.payload, journal_id))
        else:
            session = event.session
            ms = ms_of(session.click_id)
            self.revisions.add(session.revision)
            self.id_by_day[ms // DAY_MS] = session.click_id
            (self.clicks if isinstance(event, Click) else self.impressions).append((event, session, record, journal_id))
        # Ids only grow within a journal, but the next one may be of the same millisecond.
        self.watermark_ms = max(self.watermark_ms, ms - 1)


def _end_of(entry: Entry) -> Place:
    """Where reading goes on behind `entry`; a segment that is missing is left for the next."""
    if entry.end_offset == entry.byte_offset:
        return entry.segment + 1, 0
    return entry.segment, entry.end_offset


def quarantined(journal_id: UUID, entry: Entry, error: BaseException) -> Quarantined:
    """`entry`, whole, with what was wrong about it."""
    raw = entry.payload if isinstance(entry, Record) else entry.raw
    return Quarantined(journal_id, entry.segment, entry.byte_offset, f"{type(error).__name__}: {error}"[:1000], raw)
