"""Frames: how one record lies in a segment. Pure: bytes in, bytes out.

    u32 length | u32 crc | u8 version | payload          little-endian; payload of 1 byte to 256 KiB

J1  A frame verifies whole or is no frame: no part of a record is ever handed out.
J2  The CRC covers length, version and payload and is seeded with the journal's id, the segment and the offset. Bytes that
    a client chose cannot pass for a frame, and a frame counts in no other journal and at no other place.
J3  A damaged region ends at the first later offset where a frame verifies; every record from there on is kept.

Invariants J4 to J11 are in segments.py.
"""

import re
import struct
from collections.abc import Sequence
from uuid import UUID
from zlib import crc32

import msgspec

VERSION = 1
MAX_PAYLOAD_BYTES = 256 * 1024

_HEAD = struct.Struct("<IIB")
_PLACE = struct.Struct("<QIB")
_pack_head, _unpack_head, _pack_place = _HEAD.pack, _HEAD.unpack_from, _PLACE.pack

HEAD_BYTES = _HEAD.size
MAX_FRAME_BYTES = HEAD_BYTES + MAX_PAYLOAD_BYTES

# Where a frame could start: a length of at most 256 KiB, any CRC, our version. Spares a CRC at nearly every offset.
_CANDIDATE = re.compile(rb"..[\x00-\x04]\x00.{4}" + bytes([VERSION]), re.DOTALL)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One payload and where it lies; `end_offset` is where the next frame starts."""

    segment: int
    byte_offset: int
    end_offset: int
    payload: bytes


def make_seed(journal_id: UUID, segment: int) -> int:
    """The CRC's start value for the frames of one segment (J2)."""
    return crc32(journal_id.bytes + segment.to_bytes(4, "little"))


def frame_batch(payloads: Sequence[bytes], seed: int, offset: int) -> bytes:
    """All payloads as frames, the first one at `offset`; ValueError for an empty or oversized one."""
    parts: list[bytes] = []
    add = parts.append
    for payload in payloads:
        length = len(payload)
        if not 0 < length <= MAX_PAYLOAD_BYTES:
            raise ValueError(f"a journal payload has 1 to {MAX_PAYLOAD_BYTES} bytes, not {length}")
        add(_pack_head(length, crc32(payload, crc32(_pack_place(offset, length, VERSION), seed)), VERSION))
        add(payload)
        offset += HEAD_BYTES + length
    return b"".join(parts)


def count_whole_frames(payloads: Sequence[bytes], written_bytes: int) -> tuple[int, int]:
    """Of a batch that reached the file only through `written_bytes`: the whole frames, and their bytes."""
    whole_bytes = 0
    for count, payload in enumerate(payloads):
        end = whole_bytes + HEAD_BYTES + len(payload)
        if end > written_bytes:
            return count, whole_bytes
        whole_bytes = end
    return len(payloads), whole_bytes


def parse_frames(
    chunk: bytes, index: int, chunk_offset: int, seed: int, segment: int, max_records: int
) -> list[Record]:
    """The frames that follow each other from `index` on, up to what is no whole, valid frame (J1)."""
    records: list[Record] = []
    add = records.append
    size = len(chunk)
    while len(records) < max_records and index + HEAD_BYTES <= size:
        length, crc, version = _unpack_head(chunk, index)
        start = index + HEAD_BYTES
        end = start + length
        # `version` first: a file's zeroed tail would otherwise cost a CRC a byte.
        if version != VERSION or end > size or not 0 < length <= MAX_PAYLOAD_BYTES:
            break
        payload = chunk[start:end]
        offset = chunk_offset + index
        if crc32(payload, crc32(_pack_place(offset, length, VERSION), seed)) != crc:
            break
        add(Record(segment, offset, chunk_offset + end, payload))
        index = end
    return records


def find_frame(chunk: bytes, chunk_offset: int, seed: int, max_index: int) -> int | None:
    """The first index below `max_index` where a frame verifies (J3)."""
    index = 0
    while candidate := _CANDIDATE.search(chunk, index):
        index = candidate.start()
        if index >= max_index:
            return None
        if parse_frames(chunk, index, chunk_offset, seed, 0, 1):
            return index
        index += 1
    return None
