"""A batch of a journal, decoded: its events by kind, and what is no event."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from edge.drain.matching import Received
from edge.tracking.click_id import ms_of
from storage.journal.events import Click, Conversion, Event, Heartbeat, Impression, Session, decode
from storage.journal.framing import Record
from storage.journal.reader import Damaged

Entry = Record | Damaged
Touch = tuple[Click | Impression, Session, Record]
DAY_MS = 86_400_000


class Quarantined(NamedTuple):
    """What cannot be stored as what it says it is."""

    segment: int
    byte_offset: int
    error: str
    raw: bytes


class Contents:
    """A batch, decoded: what it holds of each kind."""

    def __init__(self, journal_id: UUID, entries: Sequence[Entry]) -> None:
        self.clicks: list[Touch] = []
        self.impressions: list[Touch] = []
        self.conversions: list[Received] = []
        self.quarantined: list[Quarantined] = []
        self.watermark_ms = 0
        self.revisions: set[int] = set()
        self.id_by_day: dict[int, bytes] = {}
        """One click id for each day (since 1970) that the batch has ids of."""
        for entry in entries:
            if isinstance(entry, Damaged):
                self.quarantined.append(Quarantined(entry.segment, entry.byte_offset, entry.error, entry.raw))
                continue
            try:
                self._take(journal_id, entry, decode(entry.payload))
            except (msgspec.MsgspecError, ValueError) as error:
                self.quarantined.append(quarantined(entry, error))

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
            (self.clicks if isinstance(event, Click) else self.impressions).append((event, session, record))
        # Ids only grow within a journal, but the next one may be of the same millisecond.
        self.watermark_ms = max(self.watermark_ms, ms - 1)


def quarantined(entry: Entry, error: BaseException) -> Quarantined:
    """`entry`, whole, with what was wrong about it."""
    raw = entry.payload if isinstance(entry, Record) else entry.raw
    return Quarantined(entry.segment, entry.byte_offset, f"{type(error).__name__}: {error}"[:1000], raw)
