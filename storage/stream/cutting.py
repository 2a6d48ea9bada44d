"""A journal cut into shipments, so that S1 to S4 of shipments.py hold; and how far that came, on disk. No network here."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from storage.files import write_atomically
from storage.journal.events import Heartbeat, decode
from storage.journal.framing import Record
from storage.journal.reader import Batch, Damaged
from storage.journal.segments import Journal, Position
from storage.stream.shipments import (
    MAX_BYTES,
    VERSION,
    Beat,
    Message,
    Place,
    Sent,
    Shipment,
    partition_of,
    partition_of_damage,
)

PROGRESS_NAME = "shipped"
MAX_RAW_BYTES = 256 * 1024
"""Of a damaged region: all of it fits into a message with its neighbours."""
START = Position(1, 0)


class Progress(msgspec.Struct, frozen=True):
    """Through where a journal was acknowledged, and through where each partition's last shipment before that went."""

    place: Place
    ends: list[Place]
    watermark_ms: int = 0
    is_finished: bool = False


def read_progress(directory: Path, partitions: int) -> Progress | None:
    """What `write_progress` left; None when there is nothing usable: all is sent again, and skipped where it is stored."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        progress = msgspec.json.decode((directory / PROGRESS_NAME).read_bytes(), type=Progress)
        if len(progress.ends) == partitions:
            return progress
    return None


def write_progress(directory: Path, progress: Progress) -> None:
    """Remember it, whole or not at all. OSError: the disk does not take it."""
    write_atomically(directory / PROGRESS_NAME, [msgspec.json.encode(progress)])


class Cutter:
    """Cuts one journal's batches. What it returns must be sent in its order."""

    def __init__(self, journal: Journal, progress: Progress | None) -> None:
        self._journal = journal
        self.progress = progress or Progress(START, [START] * journal.partitions)
        """As if all that was cut were acknowledged."""

    def opening(self) -> list[Message]:
        """A word to all partitions that this journal exists."""
        return [self._beat(self.progress)]

    def closing(self) -> list[Message]:
        """A word to all partitions that nothing follows."""
        last = self._beat(self.progress, is_last=True)
        place = self.progress.place
        self.progress = Progress(place, [place] * self._journal.partitions, self.progress.watermark_ms, is_finished=True)
        return [last]

    def go_back(self, place: Place) -> None:
        """Cut again from there, for every partition."""
        self.progress = Progress(place, [place] * self._journal.partitions)

    def cut(self, batch: Batch) -> list[Message]:
        """What a batch that begins where the last one ended has for each partition."""
        shares: list[list[Sent]] = [[] for _ in range(self._journal.partitions)]
        watermark_ms, is_for_all = self.progress.watermark_ms, False
        for record in batch.records:
            number, ms = self._look_into(record)
            watermark_ms = max(watermark_ms, ms - 1)
            if number < 0:
                is_for_all = True
            else:
                shares[number].append(Sent(record.segment, record.byte_offset, record.end_offset, record.payload))
        for damaged in batch.damaged:
            for number in self._shares_of_damage(damaged):
                shares[number].append(_sent_damage(damaged))
        messages: list[Message] = []
        ends, end = list(self.progress.ends), (batch.end.segment, batch.end.byte_offset)
        for number, share in enumerate(shares):
            if share:
                messages += self._split(number, batch, share, watermark_ms)
                ends[number] = end
        progress = Progress(end, ends, watermark_ms)
        if is_for_all:
            messages.append(self._beat(progress))
            progress = Progress(end, [end] * self._journal.partitions, watermark_ms)
        self.progress = progress
        return messages

    def _look_into(self, record: Record) -> tuple[int, int]:
        """A record's partition, -1 for all, and its id's millisecond; what is no event goes anywhere and vouches for nothing."""
        try:
            event = decode(record.payload)
        except (msgspec.MsgspecError, ValueError):
            return self._partition_at((record.segment, record.byte_offset)), 0
        if isinstance(event, Heartbeat):
            return -1, event.ms
        event_id = event.conversion_id if hasattr(event, "conversion_id") else event.session.click_id
        return partition_of(event, self._journal.partitions), int.from_bytes(event_id[:6], "big")

    def _shares_of_damage(self, damaged: Damaged) -> Sequence[int]:
        """What is missing may have been anybody's, and who has stored it already skips the report: each partition gets it."""
        if not damaged.raw:
            return range(self._journal.partitions)
        return [self._partition_at((damaged.segment, damaged.byte_offset))]

    def _partition_at(self, place: Place) -> int:
        return partition_of_damage(self._journal.journal_id, place, self._journal.partitions)

    def _split(self, number: int, batch: Batch, share: list[Sent], watermark_ms: int) -> list[Shipment]:
        """One shipment, or several that follow each other where one would be too large for a message."""
        share.sort(key=lambda sent: (sent.segment, sent.byte_offset))
        shipments: list[Shipment] = []
        before, first, size_bytes = self.progress.ends[number], 0, 0
        for index, sent in enumerate(share):
            if size_bytes + len(sent.payload) > MAX_BYTES and index > first:
                part = share[first:index]
                after = _place_behind(part[-1])
                shipments.append(self._shipment(number, before, part, self.progress.watermark_ms, after))
                before, first, size_bytes = after, index, 0
            size_bytes += len(sent.payload)
        shipments.append(self._shipment(number, before, share[first:], watermark_ms, batch.end))
        return shipments

    def _shipment(self, number: int, before: Place, entries: list[Sent], watermark_ms: int, after: Place) -> Shipment:
        journal = self._journal
        return Shipment(
            VERSION, journal.journal_id.bytes, journal.node_id, journal.worker_id, journal.partitions,
            number, before, after, watermark_ms, False, entries,
        )  # fmt: skip

    def _beat(self, progress: Progress, *, is_last: bool = False) -> Beat:
        journal = self._journal
        return Beat(
            VERSION, journal.journal_id.bytes, journal.node_id, journal.worker_id, journal.partitions,
            progress.ends, progress.place, progress.watermark_ms, is_last,
        )  # fmt: skip


def _place_behind(sent: Sent) -> Place:
    """Where reading goes on behind an entry; a segment that is missing is left for the next."""
    if sent.end_offset == sent.byte_offset:
        return sent.segment + 1, 0
    return sent.segment, sent.end_offset


def _sent_damage(damaged: Damaged) -> Sent:
    raw, error = damaged.raw[:MAX_RAW_BYTES], damaged.error
    if len(raw) < len(damaged.raw):
        error = f"{error}; of {damaged.end_offset - damaged.byte_offset} bytes the first {len(raw)} sent"
    return Sent(damaged.segment, damaged.byte_offset, damaged.end_offset, raw, error or "damaged")
