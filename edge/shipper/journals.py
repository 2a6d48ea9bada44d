"""The journals of this machine whose events go to the stream: found, read, cut, sent, and marked once acknowledged."""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog

from edge.logs import RateLimited
from storage.journal.capacity import bytes_behind
from storage.journal.reader import JournalReader
from storage.journal.retention import keep_from, mark_drained
from storage.journal.segments import Journal, Position, list_journals
from storage.stream.cutting import START, Cutter, Progress, read_progress, write_progress
from storage.stream.publishing import Delivery, Publisher
from storage.stream.shipments import Message, Place

log = structlog.get_logger()
quietly = RateLimited(log, 60.0)

BATCH_RECORDS = 4000
BATCH_BYTES = 2 * 2**20
RESEND_PAUSE_S = 5.0
MAX_RESEND_PAUSE_S = 60.0
"""A drain that is behind asks again and again before it reads what was sent for it: each time more, it would never be through."""


class UnderWay(NamedTuple):
    """What was sent last, and where that comes to once it is acknowledged."""

    progress: Progress
    delivery: Delivery


class ShippedJournal:
    """One journal on its way. Only `collect` believes what the stream acknowledged, in the order it was sent."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        written = read_progress(journal.path, journal.partitions)
        self.is_new = written is None
        self._cutter = Cutter(journal, written)
        self.acknowledged = self._cutter.progress
        self._written = written
        self._reader = JournalReader(journal.path, Position(*self.acknowledged.place))
        self._under_way: deque[UnderWay] = deque()
        self._is_closing = False
        self._resent_from: Place = START
        self._resent_until_s = self._resend_pause_s = 0.0
        self.is_behind = False
        """Whether more was there than the last batch took."""

    async def announce(self, publisher: Publisher) -> Delivery:
        """Tell every partition of it, before anything of a younger journal."""
        return await publisher.send(self._cutter.opening())

    async def send_next(self, publisher: Publisher) -> int:
        """Send what comes next; how many events that was. StreamAway: the connection is gone."""
        if self._is_closing:
            return 0
        batch = self._reader.read(BATCH_RECORDS, BATCH_BYTES)
        count = len(batch.records) + len(batch.damaged)
        self.is_behind = count >= BATCH_RECORDS or batch.size_bytes >= BATCH_BYTES
        if tuple(batch.end) != self._cutter.progress.place:
            messages = self._cutter.cut(batch)
            self._under_way.append(UnderWay(self._cutter.progress, await publisher.send(messages)))
        if batch.finished:
            self._is_closing = True
            messages = self._cutter.closing()
            self._under_way.append(UnderWay(self._cutter.progress, await publisher.send(messages)))
        return count

    @property
    def is_under_way(self) -> bool:
        """Whether the stream has not acknowledged something that was sent."""
        return bool(self._under_way)

    def collect(self) -> bool:
        """Take in what was acknowledged; whether the place moved. StreamAway: something was not."""
        before = self.acknowledged
        while self._under_way and self._under_way[0].delivery.is_done:
            self.acknowledged = self._under_way.popleft().progress
        return self.acknowledged is not before

    def go_back(self) -> None:
        """Begin again from what was acknowledged."""
        self._under_way.clear()
        self._is_closing = False
        self._cutter.progress = self.acknowledged
        self._reader.seek(Position(*self.acknowledged.place))

    def is_due_again(self, place: Place) -> bool:
        """Whether what follows `place` was sent, and was not sent again a moment ago."""
        was_sent_again = time.monotonic() < self._resent_until_s and place >= self._resent_from
        return place < self._cutter.progress.place and not was_sent_again

    def resend_from(self, place: Place) -> None:
        """Send again from there."""
        is_same = place == self._resent_from and self._resend_pause_s > 0
        self._resend_pause_s = min(MAX_RESEND_PAUSE_S, 2 * self._resend_pause_s) if is_same else RESEND_PAUSE_S
        self._resent_from, self._resent_until_s = place, time.monotonic() + self._resend_pause_s
        if place > self.acknowledged.place:
            # One partition is that far; what others have in between is not known to be in the stream.
            self.go_back()
            return
        self._under_way.clear()
        self._is_closing = False
        self._cutter.go_back(place)
        self.acknowledged = self._cutter.progress
        self._reader.seek(Position(*place))

    def keep(self) -> None:
        """Write down how far this came, and mark the segments left behind; those to be sent again stay. Blocks: for a thread."""
        progress, now_s = self.acknowledged, time.time()
        if progress != self._written:
            try:
                write_progress(self.journal.path, progress)
                self._written = progress
            except OSError as error:
                # A full disk must not end the shipping: that is what gives space back. After a restart more comes twice.
                quietly.warning("shipped_place_not_kept", journal=self.journal.journal_id.hex, error=str(error))
        segment = progress.place[0]
        mark_drained(self.journal.path, segment if progress.is_finished else segment - 1, now_s=now_s)
        if not progress.is_finished:
            keep_from(self.journal.path, segment, now_s=now_s)

    def unshipped_bytes(self) -> int:
        """What of it the stream has not acknowledged."""
        return bytes_behind(self.journal.path, Position(*self.acknowledged.place))

    def close(self) -> None:
        """Give the descriptor back."""
        self._reader.close()


class ShippedJournals:
    """All of this machine that a stream gets and has not got wholly."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[UUID, ShippedJournal] = {}
        self.finished: set[UUID] = set()

    def __iter__(self) -> Iterator[ShippedJournal]:
        return iter(list(self._open.values()))

    def discover(self) -> list[ShippedJournal]:
        """Take in those that have appeared, the oldest first; these."""
        found = []
        for journal in list_journals(self.root):
            if not journal.partitions or journal.journal_id in self._open or journal.journal_id in self.finished:
                continue
            one = ShippedJournal(journal)
            if one.acknowledged.is_finished:
                self.finished.add(journal.journal_id)
                one.keep()
                one.close()
            else:
                self._open[journal.journal_id] = one
                found.append(one)
        return found

    def end(self, one: ShippedJournal) -> None:
        """The stream has all of it."""
        one.keep()
        one.close()
        self.finished.add(one.journal.journal_id)
        del self._open[one.journal.journal_id]
        log.info("journal_shipped", journal=one.journal.journal_id.hex, worker=one.journal.worker_id)

    def may_send_again(self, journal_id: UUID, place: Place) -> bool:
        """Whether what follows `place` in a journal of this machine was sent before, and not again a moment ago."""
        one = self._open.get(journal_id)
        return journal_id in self.finished if one is None else one.is_due_again(place)

    def endings(self) -> list[Message]:
        """The last word on each journal that was shipped and is still there, once more. Blocks: for a thread."""
        messages: list[Message] = []
        for journal in list_journals(self.root):
            progress = read_progress(journal.path, journal.partitions) if journal.journal_id in self.finished else None
            if progress is not None and progress.is_finished:
                messages += Cutter(journal, progress).closing()
        return messages

    def find(self, journal_id: UUID) -> ShippedJournal | None:
        """That journal, opened again if all of it was shipped; None when this machine has it no more."""
        if journal_id in self.finished:
            journal = next((one for one in list_journals(self.root) if one.journal_id == journal_id), None)
            if journal is None:
                return None
            self._open[journal_id] = ShippedJournal(journal)
            self.finished.discard(journal_id)
        return self._open.get(journal_id)
