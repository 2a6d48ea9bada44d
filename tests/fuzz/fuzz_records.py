"""What the product wrote itself, and disks, restores or clients may have changed: records, snapshots, cursors, cookies."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from edge.admin.api.paging import cursor_after, place_of
from edge.admin.api.problems import Problem
from edge.admin.catalog_documents import matches
from edge.admin.console.sessions import Signer
from edge.tracking.parameters import clean
from edge.tracking.redirects import Hops
from storage.journal.events import Heartbeat, decode, decode_session, encode
from storage.journal.framing import find_frame, frame_batch, make_seed, parse_frames
from storage.journal.segments import Header, pack_header, parse_header
from storage.snapshot_file import Snapshot, SnapshotDamaged, write_snapshot
from storage.state_file import PublishedState, StateDamaged, read_state, write_state
from tests.fuzz.harness import as_text, target

FOLDER = Path(tempfile.mkdtemp(prefix="clickedge-fuzz-", dir=os.environ.get("FUZZ_FOLDER", "/var/tmp")))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SEED = make_seed(UUID(int=7), 1)
FRAMES = frame_batch([b"first", b"second" * 9], SEED, 0)
SIGNER = Signer("a secret of the tests' own")
COOKIE = SIGNER.issue(7, "print", 1000.0)
HOPS = Hops(["a secret of the tests' own"])
HOP = HOPS.link_to("https://shop.example.com/", 1000)
NOW_S = 2000.0


def _file(write: Any, *arguments: Any) -> bytes:
    path = FOLDER / "seed"
    write(path, *arguments)
    return path.read_bytes()


SNAPSHOT = _file(write_snapshot, 7, [("offers", "17", b"{}")])
STATE = _file(write_state, PublishedState())


@target(FRAMES, FRAMES[:-1], b"\0" * 40, FRAMES + FRAMES)
def journal_frames(data: bytes) -> None:
    """Frames come back as they were framed, in order, or not at all."""
    records = parse_frames(data, 0, 0, SEED, 1, 1000)
    assert b"".join(frame_batch([one.payload], SEED, one.byte_offset) for one in records) == data[: records[-1].end_offset if records else 0]
    found = find_frame(data, 0, SEED, len(data))
    assert found is None or parse_frames(data, found, 0, SEED, 1, 1)


@target(encode(Heartbeat(7)), b"\x93\x09\x01\x02", b"\x95\x01")
def events(data: bytes) -> None:
    """An event, or one of msgspec's own faults."""
    for read in (decode, decode_session):
        try:
            found = read(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        assert type(found) is type(read(encode(found)))


@target(pack_header(Header(UUID(int=7), 1, 2, 3, 4)))
def segment_headers(data: bytes) -> None:
    """A header as it was packed, or none."""
    header = parse_header(data)
    assert header is None or data.startswith(pack_header(header))


@target(SNAPSHOT, SNAPSHOT[:-3], b"")
def catalog_snapshots(data: bytes) -> None:
    """Items, or SnapshotDamaged."""
    try:
        for chunk in Snapshot(Path("fuzzed"), data).chunks():
            assert isinstance(chunk, list)
    except SnapshotDamaged:
        pass


@target(STATE, b"{}", b'{"version": 9}')
def published_states(data: bytes) -> None:
    """A state, or StateDamaged."""
    path = FOLDER / "state"
    path.write_bytes(data)
    try:
        read_state(path)
    except StateDamaged:
        pass


@target(cursor_after([7, 9]).encode(), cursor_after("x").encode(), b"====")
def cursors(data: bytes) -> None:
    """A place of the type asked for, or a problem with the field's name."""
    for kind in (int, tuple[int, int], str):
        try:
            place = place_of(as_text(data), kind)
        except Problem as problem:
            if problem.status != 422:
                raise
            continue
        assert place is None or place_of(cursor_after(place), kind) == place


@target(b'"abc", W/"def"', b"*", b",,,")
def etags(data: bytes) -> None:
    """`If-Match` names a version wholly or not."""
    text = as_text(data)
    assert matches('"abc"', text) is any(one.strip() in ('"abc"', "*") for one in text.split(","))


@target(COOKIE.encode(), COOKIE.encode()[:-1], b"7.9.x.0")
def session_cookies(data: bytes) -> None:
    """Only what was signed is a session."""
    text = as_text(data)
    assert SIGNER.read(text, NOW_S) is None or text == COOKIE


@target(HOP.encode(), b"/hop?u=aHR0cHM6Ly9ldmls&s=0")
def hops(data: bytes) -> None:
    """Only what was signed leads anywhere."""
    packed, _, tag = clean(as_text(data)).partition("?u=")[2].partition("&s=")
    assert HOPS.location_of(packed, tag, 1000) in ("", "https://shop.example.com/")
