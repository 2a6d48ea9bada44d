"""The writing end: one event loop thread calls `write`, one other thread may call `sync` meanwhile.

A batch is one write(2). What a failed write leaves is settled at once (J7): whole frames stay and count, since a reader
may have seen them; the fragment behind them is cut off, and where even that fails the segment is given up for the next.
Nothing has to be restarted when space comes back. A failed fsync, though, is the end (J8): the kernel may have thrown
away the pages it could not write, and the next fsync would claim success.
"""

import contextlib
import errno
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from storage.errors import JournalBroken
from storage.journal.filesystem import REAL_FILESYSTEM, Filesystem
from storage.journal.framing import count_whole_frames, frame_batch, make_seed
from storage.journal.segments import (
    HEADER_BYTES,
    LOCK_NAME,
    STREAM_NAME,
    UNBORN_PREFIX,
    Header,
    Position,
    name_next,
    name_segment,
    pack_header,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Segment:
    """An open segment. `size_bytes` is the end of its last whole frame; `is_spoilt`: a fragment follows it."""

    __slots__ = ("descriptor", "is_spoilt", "number", "seed", "size_bytes")

    def __init__(self, number: int, descriptor: int, seed: int) -> None:
        self.number = number
        self.descriptor = descriptor
        self.seed = seed
        self.size_bytes = HEADER_BYTES
        self.is_spoilt = False


class JournalWriter:
    """The one writer of one journal; made by `create`."""

    def __init__(
        self, directory: Path, header: Header, partitions: int, max_segment_bytes: int, disk: Filesystem
    ) -> None:
        self.journal_id = header.journal_id
        self.directory = directory
        self.appended_bytes = 0
        """Frames written, all told: a ticket to compare with `synced_bytes`."""
        self.synced_bytes = 0
        """How much of `appended_bytes` a power cut cannot take any more."""
        self.last_error: OSError | None = None
        """Why the last `write` that fell short did, for the log."""
        self._header = header
        self._partitions = partitions
        self._lock_descriptor = -1
        self._max_segment_bytes = max_segment_bytes
        self._disk = disk
        self._write = disk.write
        self._refusal = ""
        # `_turn` guards the five names below, only ever for an instant: the loop must not wait for the sync thread's I/O.
        self._turn = threading.Lock()
        self._segment = _Segment(1, -1, 0)
        self._segment.is_spoilt = True  # takes nothing until `begin` has made the one on the disk
        self._prepared: _Segment | None = None
        self._retired: list[_Segment] = []
        self._has_new_names = False
        # Held through a whole sync: no descriptor is closed while another sync may be using it.
        self._sync_turn = threading.Lock()

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        node_id: int,
        worker_id: int,
        now_ms: int,
        max_segment_bytes: int,
        partitions: int = 0,
        waits_for_room: bool = False,
        filesystem: Filesystem = REAL_FILESYSTEM,
    ) -> "JournalWriter":
        """A new journal under `root`, which is made when missing; OSError when the disk does not take it (J4).

        `partitions`: over how many of a stream's partitions its events go; 0: no stream, this machine drains it.
        `waits_for_room`: on a full disk it takes nothing, until a later `begin` finds room.
        """
        header = Header(uuid4(), node_id, worker_id, 0, now_ms)
        writer = cls(root / header.journal_id.hex, header, partitions, max_segment_bytes, filesystem)
        if not writer.begin(now_ms) and not waits_for_room and writer.last_error:
            raise writer.last_error
        return writer

    @property
    def has_begun(self) -> bool:
        """Whether it is on the disk."""
        return self._lock_descriptor >= 0

    def begin(self, now_ms: int) -> bool:
        """Put the journal on the disk, in the thread that syncs; False: there is no room now. OSError for another reason."""
        self._header = self._header._replace(created_ms=now_ms)
        try:
            lock, first = self._bear()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self.last_error = error
            return False
        with self._turn:
            self._lock_descriptor, self._segment = lock, first
        return True

    @property
    def appended(self) -> Position:
        """Where the next frame goes."""
        return Position(self._segment.number, self._segment.size_bytes)

    def write(self, payloads: Sequence[bytes]) -> int:
        """Append all in one write(2); how many of them, from the first on, are wholly in the file.

        Fewer than all: no space, or `last_error`; the rest may be tried again at any time. JournalBroken after a
        failed fsync or `close`; ValueError, and nothing written, for an empty or oversized payload.
        """
        if self._refusal:
            raise JournalBroken(self._refusal)
        segment = self._segment
        if segment.size_bytes >= self._max_segment_bytes or segment.is_spoilt:
            segment = self._rotate()
            if segment.is_spoilt:
                return 0
        frames = frame_batch(payloads, segment.seed, segment.size_bytes)
        try:
            written_bytes = self._write(segment.descriptor, frames)
        except OSError as error:
            self.last_error = error
            written_bytes = self._disk.measure(segment.descriptor) - segment.size_bytes
        else:
            if written_bytes < len(frames):
                self.last_error = OSError(errno.ENOSPC, "short write")
        if written_bytes == len(frames):
            segment.size_bytes += written_bytes
            self.appended_bytes += written_bytes
            return len(payloads)
        return self._settle(segment, payloads, written_bytes)

    def sync(self) -> int:
        """Put on the disk all that was written before the call; the new `synced_bytes`. From any one thread at a time.

        JournalBroken when the disk refuses: the process must not answer again (J8).
        """
        with self._sync_turn:
            return self._sync()

    def close(self) -> None:
        """Sync, then let go of the lock: the journal has ended. Descriptors are given back even when the sync fails."""
        with self._sync_turn:
            if self._lock_descriptor < 0:
                return
            try:
                if not self._refusal:
                    self._sync()
            finally:
                self._refusal = self._refusal or "this journal is closed"
                self._release()

    def _bear(self) -> tuple[int, _Segment]:
        """The lock and the first segment of the journal, which appears on the disk with both (J4)."""
        disk, root = self._disk, self.directory.parent
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.sync_directory(root.parent)
        unborn = root / f"{UNBORN_PREFIX}{self.journal_id.hex}"
        disk.make_directory(unborn)
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, unborn, ignore_errors=True)
            lock = disk.create_file(unborn / LOCK_NAME)
            undo.callback(disk.close, lock)
            disk.lock(lock)
            _write_header(disk, lock, self._header)
            if self._partitions:
                _write_partitions(disk, unborn / STREAM_NAME, self._partitions)
            first = _create_segment(disk, name_segment(unborn, 1), self._header._replace(segment=1))
            undo.callback(disk.close, first.descriptor)
            disk.sync_data(lock)
            disk.sync_data(first.descriptor)
            disk.sync_directory(unborn)
            disk.rename(unborn, self.directory)
            disk.sync_directory(root)
            undo.pop_all()
        return lock, first

    def _settle(self, segment: _Segment, payloads: Sequence[bytes], written_bytes: int) -> int:
        count, whole_bytes = count_whole_frames(payloads, written_bytes)
        segment.size_bytes += whole_bytes
        self.appended_bytes += whole_bytes
        if written_bytes > whole_bytes:
            try:
                self._disk.truncate(segment.descriptor, segment.size_bytes)
            except OSError as error:
                self.last_error = error
                segment.is_spoilt = True
        return count

    def _rotate(self) -> _Segment:
        """The next segment, or the old one again when the disk takes no new file: then that one outgrows its limit."""
        with self._turn:
            if not self.has_begun:
                return self._segment
            number = self._segment.number + 1
            following, self._prepared = self._prepared, None
            # Another name than the sync thread's, which may be preparing the same number at this moment.
            path = name_next(self.directory, number).with_suffix("" if following else ".inline")
            try:
                following = following or self._create_next(number, path)
                self._disk.rename(path, name_segment(self.directory, number))
            except OSError as error:
                self.last_error = error
                if following:
                    self._discard(following, path)
                return self._segment
            self._retired.append(self._segment)
            self._segment = following
            self._has_new_names = True
            return following

    def _discard(self, prepared: _Segment, path: Path) -> None:
        self._disk.close(prepared.descriptor)
        with contextlib.suppress(OSError):
            self._disk.remove(path)

    def _create_next(self, number: int, path: Path) -> _Segment:
        return _create_segment(self._disk, path, self._header._replace(segment=number))

    def _sync(self) -> int:
        if self._refusal:
            raise JournalBroken(self._refusal)
        with self._turn:
            appended_bytes = self.appended_bytes
            current, retired = self._segment, list(self._retired)
            has_new_names, self._has_new_names = self._has_new_names, False
        if appended_bytes > self.synced_bytes or retired:
            for segment in [*retired, current]:
                self._sync_data(segment)
            if has_new_names:
                self._sync_directory()
            self.synced_bytes = appended_bytes
        with self._turn:
            del self._retired[: len(retired)]
        for segment in retired:
            self._disk.close(segment.descriptor)
        self._prepare_next()
        return self.synced_bytes

    def _sync_data(self, segment: _Segment) -> None:
        try:
            self._disk.sync_data(segment.descriptor)
        except OSError as error:
            raise self._break(f"fdatasync of segment {segment.number}", error) from error

    def _sync_directory(self) -> None:
        try:
            self._disk.sync_directory(self.directory)
        except OSError as error:
            raise self._break("fsync of the directory", error) from error

    def _break(self, deed: str, error: OSError) -> JournalBroken:
        self._refusal = f"{deed} failed in journal {self.journal_id.hex}: {error.strerror or error}"
        return JournalBroken(self._refusal)

    def _prepare_next(self) -> None:
        """Have the next segment at hand once this one is half full, so that rotation is one rename on the loop.

        A disk that takes no new file now is no fault: `write` tries again when it must.
        """
        with self._turn:
            number = self._segment.number + 1
            if self._prepared or self._segment.size_bytes * 2 < self._max_segment_bytes:
                return
        try:
            prepared = self._create_next(number, name_next(self.directory, number))
        except OSError:
            return
        self._sync_data(prepared)
        with self._turn:
            if number == self._segment.number + 1:
                self._prepared = prepared
                return
        self._discard(prepared, name_next(self.directory, number))

    def _release(self) -> None:
        for segment in [*self._retired, self._segment]:
            self._disk.close(segment.descriptor)
        if self._prepared:
            self._discard(self._prepared, name_next(self.directory, self._prepared.number))
        self._disk.close(self._lock_descriptor)
        self._lock_descriptor = -1


def _write_partitions(disk: Filesystem, path: Path, partitions: int) -> None:
    text = f"{partitions}\n".encode("ascii")
    descriptor = disk.create_file(path)
    try:
        if disk.write(descriptor, text) != len(text):
            raise OSError(errno.ENOSPC, "no space to say where a journal's events go")
        disk.sync_data(descriptor)
    finally:
        disk.close(descriptor)


def _create_segment(disk: Filesystem, path: Path, header: Header) -> _Segment:
    """A new file with its header; no trace of it when the disk does not take it."""
    descriptor = disk.create_file(path)
    try:
        _write_header(disk, descriptor, header)
    except OSError:
        disk.close(descriptor)
        disk.remove(path)
        raise
    return _Segment(header.segment, descriptor, make_seed(header.journal_id, header.segment))


def _write_header(disk: Filesystem, descriptor: int, header: Header) -> None:
    if disk.write(descriptor, pack_header(header)) != HEADER_BYTES:
        raise OSError(errno.ENOSPC, "no space for a segment's header")
