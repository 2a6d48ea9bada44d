"""What becomes of drained segments: marked, kept for a while (replay after a database restore), deleted (J11)."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from storage.journal.segments import (
    LOCK_NAME,
    UNBORN_PREFIX,
    is_alive,
    list_journal_paths,
    list_segments,
    name_segment,
)

UNBORN_GRACE_S = 60
"""A journal being born has no lock for an instant; it is not swept while it is this young."""


class _Kept(NamedTuple):
    drained_s: float
    journal_id: UUID
    number: int
    path: Path
    size_bytes: int


def mark_drained(directory: Path, through_segment: int, *, now_s: float) -> int:
    """Mark the segments up to this one as drained and left behind; how many there were.

    The last segment of a living journal is never marked, whatever the caller says: it is still written.
    """
    # Alive first, list second: a segment that appears in between only makes us mark less.
    last_spared = is_alive(directory)
    segments = list_segments(directory)
    candidates = segments[:-1] if last_spared else segments
    chosen = [segment for segment in candidates if not segment.is_done and segment.number <= through_segment]
    for segment in chosen:
        # The time before the name: interrupted in between, the segment is merely marked again.
        os.utime(segment.path, (now_s, now_s))
        segment.path.rename(name_segment(directory, segment.number, is_done=True))
    return len(chosen)


def keep_from(directory: Path, segment: int, *, now_s: float) -> None:
    """Count drained segments from this one on as drained only now: the database lacks them again, and they are to be read."""
    for kept in list_segments(directory):
        if kept.is_done and kept.number >= segment:
            with contextlib.suppress(FileNotFoundError):
                os.utime(kept.path, (now_s, now_s))


def delete_expired(
    root: Path,
    now_s: float,
    keep_s: float,
    max_total_bytes: int,
    finished: set[UUID],
    stored_before: Mapping[UUID, float],
) -> int:
    """Delete drained segments older than `keep_s`, and the oldest while all segments exceed `max_total_bytes`.

    For want of room only those before the segment that `stored_before` names of their journal: what a restored database
    lacks is drained no more, whatever its name says. Removes the directories of `finished` journals that have no segment
    left. Returns the bytes freed.
    """
    total_bytes, kept = _measure_segments(root)
    freed_bytes = 0
    for segment in sorted(kept):
        is_stored = segment.number < stored_before.get(segment.journal_id, 0)
        if segment.drained_s + keep_s <= now_s or (is_stored and total_bytes - freed_bytes > max_total_bytes):
            segment.path.unlink(missing_ok=True)
            freed_bytes += segment.size_bytes
    for directory in list_journal_paths(root):
        if UUID(directory.name) in finished:
            _remove_if_empty(directory)
    return freed_bytes


def sweep_unborn(root: Path, now_s: float) -> int:
    """Remove what journals left whose birth was cut short (J4); how many there were."""
    swept = 0
    for directory in root.glob(f"{UNBORN_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if directory.stat().st_mtime + UNBORN_GRACE_S <= now_s and not is_alive(directory):
                _remove(directory)
                swept += 1
    return swept


def _measure_segments(root: Path) -> tuple[int, list[_Kept]]:
    total_bytes = 0
    kept = []
    for directory in list_journal_paths(root):
        journal_id = UUID(directory.name)
        for segment in list_segments(directory):
            with contextlib.suppress(FileNotFoundError):
                status = segment.path.stat()
                total_bytes += status.st_size
                if segment.is_done:
                    kept.append(_Kept(status.st_mtime, journal_id, segment.number, segment.path, status.st_size))
    return total_bytes, kept


def _remove_if_empty(directory: Path) -> None:
    if not is_alive(directory) and not list_segments(directory):
        # Another name first: cut short, it is no journal that lacks some of its files, and what is left is swept. The
        # drains and the shipper of a data dir may want to remove the same one at the same time.
        doomed = directory.with_name(f"{UNBORN_PREFIX}{directory.name}")
        with contextlib.suppress(FileNotFoundError):
            _remove(directory.rename(doomed))


def _remove(directory: Path) -> None:
    # The lock last: without it a directory counts as ended, so an interrupted removal is simply taken up again.
    for path in sorted(directory.iterdir(), key=lambda path: path.name == LOCK_NAME):
        path.unlink()
    directory.rmdir()
