"""Frames: J1, J2, J3 of storage/journal/framing.py."""

from uuid import UUID

import pytest

from storage.journal.framing import (
    HEAD_BYTES,
    MAX_PAYLOAD_BYTES,
    count_whole_frames,
    find_frame,
    frame_batch,
    make_seed,
    parse_frames,
)

JOURNAL = UUID(int=0x1234)
SEED = make_seed(JOURNAL, 1)
PAYLOADS = [b"one", b"\x00" * 40, b"three" * 100, bytes(range(256))]


def test_what_was_framed_is_parsed_with_its_place() -> None:
    """Every payload comes back unchanged, each record ending where the next one starts."""
    chunk = frame_batch(PAYLOADS, SEED, 500)
    records = parse_frames(chunk, 0, 500, SEED, 1, 100)
    assert [record.payload for record in records] == PAYLOADS
    assert [record.end_offset for record in records[:-1]] == [record.byte_offset for record in records[1:]]
    assert (records[0].byte_offset, records[-1].end_offset) == (500, 500 + len(chunk))


def test_parsing_stops_at_the_number_asked_for() -> None:
    """No more records than wanted are taken from a chunk."""
    assert len(parse_frames(frame_batch(PAYLOADS, SEED, 0), 0, 0, SEED, 1, 2)) == 2


@pytest.mark.parametrize("length", [0, MAX_PAYLOAD_BYTES + 1])
def test_a_payload_out_of_bounds_is_refused(length: int) -> None:
    """Empty and oversized payloads are a caller's fault, and nothing is framed."""
    with pytest.raises(ValueError, match="1 to 262144 bytes"):
        frame_batch([b"fine", bytes(length)], SEED, 0)


def test_the_largest_payload_is_framed() -> None:
    """256 KiB is still allowed."""
    payload = b"x" * MAX_PAYLOAD_BYTES
    assert parse_frames(frame_batch([payload], SEED, 0), 0, 0, SEED, 1, 1)[0].payload == payload


@pytest.mark.parametrize(
    ("seed", "offset"), [(make_seed(JOURNAL, 2), 500), (make_seed(UUID(int=9), 1), 500), (SEED, 501), (SEED, 0)]
)
def test_a_frame_counts_only_at_its_own_place(seed: int, offset: int) -> None:
    """J2: the same bytes in another journal, segment or offset are no frame."""
    assert not parse_frames(frame_batch([b"payload"], SEED, 500), 0, offset, seed, 1, 1)


def test_a_frame_inside_a_payload_is_not_found() -> None:
    """J2: a client that sends a copied frame as its data cannot smuggle in a record, not even after damage."""
    stolen = frame_batch([b"pay me"], SEED, 0)
    chunk = bytearray(frame_batch([stolen * 50, b"honest"], SEED, 0))
    chunk[0] ^= 1
    index = find_frame(bytes(chunk), 0, SEED, len(chunk))
    assert index == HEAD_BYTES + len(stolen) * 50


@pytest.mark.parametrize("filler", [b"", b"\x00" * 1000, b"\x01" * 1000, b"\x05\x00\x00\x00....\x01" * 100])
def test_the_next_frame_is_found_behind_anything(filler: bytes) -> None:
    """J3: zeros, ones and look-alike headers do not hide the frame that follows them."""
    chunk = filler + frame_batch([b"found"], SEED, len(filler))
    assert find_frame(chunk, 0, SEED, len(chunk)) == len(filler)


def test_frames_beyond_the_limit_are_left_for_the_next_look() -> None:
    """A search reports only frames that start below its limit."""
    chunk = b"\x00" * 10 + frame_batch([b"later"], SEED, 10)
    assert find_frame(chunk, 0, SEED, 10) is None
    assert find_frame(chunk, 0, SEED, 11) == 10


def test_whole_frames_of_a_short_write_are_counted() -> None:
    """A batch cut at any byte: the frames wholly before the cut, and where the last of them ends."""
    chunk = frame_batch(PAYLOADS, SEED, 0)
    for cut in range(len(chunk) + 1):
        records = parse_frames(chunk[:cut], 0, 0, SEED, 1, 100)
        end = records[-1].end_offset if records else 0
        assert count_whole_frames(PAYLOADS, cut) == (len(records), end)
