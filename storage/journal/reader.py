"""The reading end: follows a journal while it is written, and reads what is left of one whose writer is gone.

Frames that verify are final (J7), so they are taken from one big chunk. Whatever does not verify is looked at again with
fresh reads before anything is said about it: a live writer may have cut off a fragment and written on since the chunk
was read.
"""

import os
from pathlib import Path
from uuid import UUID

import msgspec

from storage.journal.framing import MAX_FRAME_BYTES, Record, find_frame, make_seed, parse_frames
from storage.journal.segments import HEADER_BYTES, Position, has_segment_after, is_alive, open_segment, parse_header

MAX_RAW_BYTES = 1024 * 1024
"""How much of a damaged region is handed on: a zeroed segment must not end up whole in one database row."""

_START = Position(1, 0)
_CHUNK_BYTES = 512 * 1024


class Damaged(msgspec.Struct, frozen=True):
    """A region without a valid frame, `raw` its first MAX_RAW_BYTES; a segment that is missing: an empty region."""

    segment: int
    byte_offset: int
    end_offset: int
    raw: bytes
    error: str


class Batch(msgspec.Struct):
    """What one `read` brought, each list in order. `end` is the position to commit."""

    end: Position
    records: list[Record] = []
    damaged: list[Damaged] = []
    size_bytes: int = 0
    """Frames and raw bytes in this batch."""
    finished: bool = False
    """The writer is gone, and nothing follows `end` but `torn_bytes`."""
    torn_bytes: int = 0


class JournalReader:
    """Reads one journal from `start` on; holds one descriptor until `close`."""

    def __init__(self, directory: Path, start: Position = _START) -> None:
        """ValueError when the directory's name is no journal id."""
        self.directory = directory
        self.journal_id = UUID(directory.name)
        self._descriptor: int | None = None
        self._is_gone = False
        self.seek(start)

    def seek(self, position: Position) -> None:
        """Go on from there: how a batch that was not committed is read again."""
        self._is_finished = False
        self._move(*position)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_finished(self) -> bool:
        """Whether the last `read` came to the journal's end."""
        return self._is_finished

    def read(self, max_records: int, max_bytes: int) -> Batch:
        """What comes next; an empty batch when there is nothing new.

        Stops at `max_records`, damaged regions included, or once `max_bytes` are reached: at most 1 MiB beyond.
        """
        # Before the reads below, not after: a record written in between would be left behind (J10).
        self._is_gone = self._is_gone or not is_alive(self.directory)
        batch = Batch(Position(self._segment, self._offset))
        while (room := max_records - len(batch.records) - len(batch.damaged)) > 0 and batch.size_bytes < max_bytes:
            if not (self._take_frames(batch, room) or self._pass_obstacle(batch)):
                break
        batch.end = Position(self._segment, self._offset)
        self._is_finished = batch.finished
        return batch

    def _move(self, segment: int, offset: int) -> None:
        self.close()
        self._segment, self._offset = segment, offset
        self._seed = make_seed(self.journal_id, segment)
        self._chunk, self._chunk_offset = b"", offset
        self._has_successor = False

    def _take_frames(self, batch: Batch, max_records: int) -> bool:
        """Frames from the chunk at hand, or else from a fresh one. False: what follows is no whole, valid frame."""
        records = self._parse_chunk(max_records)
        if not records:
            self._load_chunk()
            records = self._parse_chunk(max_records)
        if not records:
            return False
        batch.records += records
        batch.size_bytes += records[-1].end_offset - self._offset
        self._offset = records[-1].end_offset
        return True

    def _parse_chunk(self, max_records: int) -> list[Record]:
        index = self._offset - self._chunk_offset
        return parse_frames(self._chunk, index, self._chunk_offset, self._seed, self._segment, max_records)

    def _load_chunk(self) -> None:
        """The bytes from here on as they are now; steps over a valid segment header."""
        if self._descriptor is None:
            self._descriptor = open_segment(self.directory, self._segment)
        self._chunk_offset = self._offset
        self._chunk = self._read_bytes(_CHUNK_BYTES, self._offset)
        if self._offset == 0:
            header = parse_header(self._chunk)
            if header and (header.journal_id, header.segment) == (self.journal_id, self._segment):
                self._offset = HEADER_BYTES

    def _read_bytes(self, size: int, offset: int) -> bytes:
        return b"" if self._descriptor is None else os.pread(self._descriptor, size, offset)

    def _pass_obstacle(self, batch: Batch) -> bool:
        """Get past what is no frame. False: there is nowhere to go, now or ever."""
        if self._skip_damage(batch):
            return True
        if not self._has_successor:
            self._has_successor = has_segment_after(self.directory, self._segment)
            # Once more to this segment's end, now that it is known to be final (J10).
            if self._has_successor:
                return True
            batch.finished = self._is_gone
            batch.torn_bytes = max(0, self._measure() - self._offset) if self._is_gone else 0
            return False
        self._leave_segment(batch)
        return True

    def _skip_damage(self, batch: Batch) -> bool:
        """To the next valid frame, if there is one (J3); what is skipped is reported."""
        end = self._find_next_frame()
        if end is None:
            return False
        start = self._offset
        # What precedes a valid frame is final (J7), but was it when we read it? Only a second look may call it damage.
        self._load_chunk()
        if self._offset == start and not self._parse_chunk(1):
            self._report(batch, end, "no valid frame")
        return True

    def _find_next_frame(self) -> int | None:
        offset = self._offset + 1
        while chunk := self._read_bytes(_CHUNK_BYTES + MAX_FRAME_BYTES, offset):
            index = find_frame(chunk, offset, self._seed, _CHUNK_BYTES)
            if index is not None:
                return offset + index
            offset += _CHUNK_BYTES
        return None

    def _leave_segment(self, batch: Batch) -> None:
        if self._descriptor is None:
            self._report(batch, self._offset, "the segment's file is missing")
        elif (size := self._measure()) > self._offset:
            self._report(batch, size, "no valid frame up to the segment's end")
        elif self._offset == 0:
            self._report(batch, 0, "the segment's file is empty")
        self._move(self._segment + 1, 0)

    def _report(self, batch: Batch, end: int, error: str) -> None:
        size = end - self._offset
        raw = self._read_bytes(min(size, MAX_RAW_BYTES), self._offset)
        if size > len(raw):
            error = f"{error}; {size} bytes, the first {len(raw)} kept"
        batch.damaged.append(Damaged(self._segment, self._offset, end, raw, error))
        batch.size_bytes += len(raw)
        self._offset = end

    def _measure(self) -> int:
        return 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
