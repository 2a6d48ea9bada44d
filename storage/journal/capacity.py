"""How much of the node's room for journals is taken, and how much of one journal is left."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from storage.journal.segments import Position, SegmentFile, list_journal_paths, list_segments


def undrained_bytes(root: Path) -> int:
    """The size of all segments of all journals that are not marked as drained; files may vanish meanwhile."""
    return sum(
        _add_up(segment for segment in list_segments(journal) if not segment.is_done)
        for journal in list_journal_paths(root)
    )


def bytes_behind(directory: Path, place: Position) -> int:
    """What one journal holds from `place` on; files may vanish meanwhile."""
    size_bytes = _add_up(segment for segment in list_segments(directory) if segment.number >= place.segment)
    return max(0, size_bytes - place.byte_offset)


def _add_up(segments: Iterable[SegmentFile]) -> int:
    total_bytes = 0
    for segment in segments:
        with contextlib.suppress(FileNotFoundError):
            total_bytes += segment.path.stat().st_size
    return total_bytes
