"""Journals of this disk whose way cannot change any more, and whether somebody here goes it: a drain or a shipper."""

from pathlib import Path
from typing import NamedTuple

import structlog

from edge.errors import UserError
from edge.settings import Settings
from storage.journal.capacity import bytes_behind
from storage.journal.segments import Journal, Position, list_journals, list_segments
from storage.stream.cutting import START, read_progress

log = structlog.get_logger()


class Unshipped(NamedTuple):
    """Journals that the stream does not have wholly, and how much of them it does not have."""

    journals: int
    size_bytes: int


def count_undrained(root: Path) -> int:
    """Journals that only a drain of this machine stores, and that are not wholly stored."""
    mine = [journal for journal in list_journals(root) if not journal.partitions]
    return sum(any(not segment.is_done for segment in list_segments(journal.path)) for journal in mine)


def find_unshipped(root: Path) -> Unshipped:
    """Journals that only a shipper takes away, by what it wrote down."""
    sizes = [_unshipped_bytes(journal) for journal in list_journals(root) if journal.partitions]
    waiting = [size for size in sizes if size is not None]
    return Unshipped(len(waiting), sum(waiting))


def judge_waiting(settings: Settings) -> None:
    """Before a node starts: UserError where it would leave events behind for ever; a warning where a command gets them."""
    root = settings.data_path / "journal"
    if not settings.drains and (undrained := count_undrained(root)):
        raise UserError(
            f"EDGE_DRAINS: 0, and {undrained} journals in {root} were begun without a stream and are not wholly"
            " stored: only a drain of this machine stores them. Start with EDGE_DRAINS=1 until `clickedge doctor` finds none"
        )
    if not settings.stream_url and (unshipped := find_unshipped(root)).journals:
        log.warning(
            "journals_not_shipped",
            journals=unshipped.journals,
            size_bytes=unshipped.size_bytes,
            hint="no drain stores them: `clickedge ship` on this data dir with the former EDGE_STREAM_URL",
        )


def _unshipped_bytes(journal: Journal) -> int | None:
    """What the stream does not have of it, as far as was written down; None: it has all, and the journal's end."""
    progress = read_progress(journal.path, journal.partitions)
    if progress is not None and progress.is_finished:
        return None
    return bytes_behind(journal.path, Position(*progress.place) if progress else START)
