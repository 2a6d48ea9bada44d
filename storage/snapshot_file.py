"""The last good catalog on disk, so that a worker starts without a database. Items are opaque bytes here.

Format: the 8 bytes `CECATLG1`, then frames `u32 length | u32 crc32(payload) | payload`, little-endian. The first
payload is the msgpack array `[revision, items]`; each other one an array of at most 250 `[table, id, body]`, together
as many as `items` says.

S1  The file under its final name is always whole: it is written under another name, synced, then renamed.
S2  A file with a damaged frame, or with fewer items than it says, is refused as a whole.
S3  Only its owner can read it: bodies hold the advertisers' tokens.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from storage.errors import StorageError
from storage.files import write_atomically

MAGIC = b"CECATLG1"
# A chunk is what a reader does without letting others run: 250 offers of 0.8 kB
# are checked and decoded in 0.09 ms, median (2 shared cores, 2026-11-21).
CHUNK_ITEMS = 250
_FRAME = struct.Struct("<II")

Item = tuple[str, str, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(tuple[int, int]).decode
_decode_chunk = msgspec.msgpack.Decoder(list[Item]).decode


class SnapshotDamaged(StorageError):
    """The catalog snapshot cannot be read; the text says why and what to do."""


class Snapshot:
    """A snapshot file's content, checked as it is read."""

    def __init__(self, path: Path, data: bytes) -> None:
        """SnapshotDamaged if the beginning of `data` is none of a snapshot's."""
        self._path = path
        self._data = memoryview(data)
        if data[: len(MAGIC)] != MAGIC:
            raise self._damaged("it is no catalog snapshot of this release")
        header, self._body_offset = self._read_frame(len(MAGIC), _decode_header)
        self.revision: int = header[0]
        self.items: int = header[1]

    def chunks(self) -> Iterator[list[Item]]:
        """The items in portions; SnapshotDamaged in the middle or at the end if they are not all there."""
        offset, items = self._body_offset, 0
        while offset < len(self._data):
            chunk, offset = self._read_frame(offset, _decode_chunk)
            items += len(chunk)
            yield chunk
        if items != self.items:
            raise self._damaged(f"{items} items of {self.items} are there")

    def _read_frame(self, offset: int, decode: Any) -> tuple[Any, int]:
        begin = offset + _FRAME.size
        if begin > len(self._data):
            raise self._damaged("it is cut off")
        length, crc = _FRAME.unpack_from(self._data, offset)
        payload = self._data[begin : begin + length]
        if len(payload) < length or zlib.crc32(payload) != crc:
            raise self._damaged(f"the checksum at byte {offset} is wrong")
        try:
            return decode(payload), begin + length
        except msgspec.MsgspecError as error:
            raise self._damaged(f"the content at byte {offset} is wrong: {error}") from error

    def _damaged(self, why: str) -> SnapshotDamaged:
        return SnapshotDamaged(f"{self._path}: {why}; delete it, and it is written anew from the database")


def open_snapshot(path: Path) -> Snapshot:
    """The snapshot in that file, read whole (blocking); OSError, or SnapshotDamaged."""
    return Snapshot(path, path.read_bytes())


def read_revision(path: Path) -> int | None:
    """The revision in that file, all of it checked (blocking); None without a file or with a damaged one."""
    try:
        snapshot = open_snapshot(path)
        for _ in snapshot.chunks():
            pass
    except (OSError, SnapshotDamaged):
        return None
    return snapshot.revision


def holds(path: Path, revision: int, items: Sequence[Item]) -> bool:
    """Whether the file is whole and has that revision and these items (blocking)."""
    try:
        snapshot = open_snapshot(path)
        stored = [item for chunk in snapshot.chunks() for item in chunk]
    except (OSError, SnapshotDamaged):
        return False
    return snapshot.revision == revision and sorted(stored) == sorted(items)


def write_snapshot(path: Path, revision: int, items: Sequence[Item]) -> None:
    """Replace the file (S1, S3); OSError leaves the former one as it was."""
    write_atomically(path, _frames(revision, items))


def _frames(revision: int, items: Sequence[Item]) -> Iterator[bytes]:
    yield MAGIC
    for payload in _payloads(revision, items):
        yield _FRAME.pack(len(payload), zlib.crc32(payload))
        yield payload


def _payloads(revision: int, items: Sequence[Item]) -> Iterator[bytes]:
    yield _encode((revision, len(items)))
    for start in range(0, len(items), CHUNK_ITEMS):
        yield _encode(items[start : start + CHUNK_ITEMS])
