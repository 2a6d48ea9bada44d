"""Journals and their files: names, header, listing, lock.

    <root>/<journal id, 32 hex>/     one directory for each worker process that ever ran, until it is drained
        lock                         flock held for the writer's life; holds a copy of the header, segment 0
        00000001.log  00000002.log   segments: one header, then frames (framing.py); `.done` once drained
        .next-00000003               the next segment, not yet part of the journal
        stream                       only where the events go to a stream: over how many partitions, as text
        shipped                      how far they did, see storage/stream/cutting.py
    <root>/.new-<journal id>/        a journal being born, or one whose birth or removal was cut short

    header: 8s magic | u16 version | 16s journal id | u16 node | u8 worker | u32 segment | u64 created ms | u32 crc
            little-endian; the CRC covers what stands before it; `created` is the journal's birth in every segment

J4  A journal appears with its lock held and its first segment in place, or not at all.
J5  Only the process that created a journal writes to it, and only while it holds the lock. A free lock: it has ended.
J6  Once segment N+1 has its final name, N is never written again. Names are never reused.
J7  Bytes of a whole frame are never removed or overwritten, only the fragment of a frame that a failed write left.
J8  What `synced_bytes` counts survives a power cut. After a failed fsync the writer takes and promises nothing more.
J9  Bytes without a valid frame after them are a torn tail: wait while the writer lives, the journal's end when it is gone.
    In a segment that has a successor they are damage: better a fragment reported than a loss hidden.
J10 A reader leaves N for N+1 only when N+1 existed before N was last read to its end, and calls a journal finished only
    when its lock was free before that read.
J11 Only `.done` segments are ever deleted.
"""

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

MAGIC = b"CLKEDGEJ"
HEADER_VERSION = 1
_HEADER = struct.Struct("<8sH16sHBIQ")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size

LOCK_NAME = "lock"
UNBORN_PREFIX = ".new-"
NEXT_PREFIX = ".next-"
STREAM_NAME = "stream"
_JOURNAL_NAME = re.compile(r"[0-9a-f]{32}")
_SEGMENT_NAME = re.compile(r"([0-9]{8,10})\.(log|done)")


class Position(NamedTuple):
    """A place in a journal; the start of the whole is (1, 0)."""

    segment: int
    byte_offset: int


class Header(NamedTuple):
    """What each segment says of itself."""

    journal_id: UUID
    node_id: int
    worker_id: int
    segment: int
    created_ms: int


class Journal(NamedTuple):
    """A journal found on the disk. `node_id` and `worker_id` are -1 when no copy of the header verifies."""

    journal_id: UUID
    node_id: int
    worker_id: int
    created_ms: int
    path: Path
    partitions: int = 0
    """Over how many of the stream's its events go; 0: to the drains of its own machine."""


class SegmentFile(NamedTuple):
    """A segment found on the disk."""

    number: int
    is_done: bool
    path: Path


def pack_header(header: Header) -> bytes:
    """The header as it stands at a segment's start."""
    body = _HEADER.pack(
        MAGIC,
        HEADER_VERSION,
        header.journal_id.bytes,
        header.node_id,
        header.worker_id,
        header.segment,
        header.created_ms,
    )
    return body + _CRC.pack(crc32(body))


def parse_header(data: bytes) -> Header | None:
    """The header that `data` starts with; None when it does not verify."""
    body = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or _CRC.unpack_from(data, _HEADER.size)[0] != crc32(body):
        return None
    magic, version, journal_id, node_id, worker_id, segment, created_ms = _HEADER.unpack(body)
    if magic != MAGIC or version != HEADER_VERSION:
        return None
    return Header(UUID(bytes=journal_id), node_id, worker_id, segment, created_ms)


def name_segment(directory: Path, number: int, *, is_done: bool = False) -> Path:
    """The final name of a segment."""
    return directory / f"{number:08d}.{'done' if is_done else 'log'}"


def name_next(directory: Path, number: int) -> Path:
    """The name of a segment that is not yet part of the journal."""
    return directory / f"{NEXT_PREFIX}{number:08d}"


def list_segments(directory: Path) -> list[SegmentFile]:
    """The segments there are, in order; none when the directory is gone."""
    matches = ((_SEGMENT_NAME.fullmatch(path.name), path) for path in _scan(directory))
    return sorted(SegmentFile(int(match[1]), match[2] == "done", path) for match, path in matches if match)


def open_segment(directory: Path, number: int) -> int | None:
    """A descriptor to read the segment with, drained or not; None when there is none.

    `.log` first: a rename to `.done` between the two attempts cannot hide the file, since none goes back.
    """
    for is_done in (False, True):
        try:
            return os.open(name_segment(directory, number, is_done=is_done), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    return None


def has_segment_after(directory: Path, number: int) -> bool:
    """Whether a later segment has its final name; the direct successor is looked for first, because that is cheap."""
    if any(name_segment(directory, number + 1, is_done=done).exists() for done in (False, True)):
        return True
    return any(segment.number > number for segment in list_segments(directory))


def parse_journal_name(path: Path) -> UUID | None:
    """The id of the journal that a directory's name says it is."""
    return UUID(path.name) if _JOURNAL_NAME.fullmatch(path.name) else None


def list_journal_paths(root: Path) -> list[Path]:
    """The directories of all journals; unborn ones and strangers are left out (J4)."""
    return sorted(path for path in _scan(root) if parse_journal_name(path) and path.is_dir())


def list_journals(root: Path) -> list[Journal]:
    """All journals, the oldest first."""
    return sorted(map(read_journal, list_journal_paths(root)), key=lambda journal: journal.created_ms)


def read_journal(path: Path) -> Journal:
    """What is known of the journal in `path`, from whichever copy of its header verifies; ValueError for another name."""
    journal_id = UUID(path.name)
    for source in [path / LOCK_NAME, *(segment.path for segment in list_segments(path))]:
        header = _read_header(source)
        if header and header.journal_id == journal_id:
            return Journal(
                journal_id, header.node_id, header.worker_id, header.created_ms, path, _read_partitions(path)
            )
    return Journal(journal_id, -1, -1, 0, path, _read_partitions(path))


def is_alive(path: Path) -> bool:
    """Whether the journal's writer still holds its lock (J5)."""
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_partitions(path: Path) -> int:
    try:
        return int((path / STREAM_NAME).read_text("ascii"))
    except FileNotFoundError:
        return 0


def _read_header(path: Path) -> Header | None:
    try:
        with path.open("rb") as file:
            return parse_header(file.read(HEADER_BYTES))
    except OSError:  # it is gone, or the disk fails there: there are other copies
        return None


def _scan(directory: Path) -> Iterator[Path]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    yield from (directory / name for name in names)
