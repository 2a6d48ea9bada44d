"""How much of the node's room for journals is taken."""

import contextlib
from pathlib import Path

from storage.journal.segments import list_journal_paths, list_segments


def undrained_bytes(root: Path) -> int:
    """The size of all segments of all journals that are not marked as drained; files may vanish meanwhile."""
    total_bytes = 0
    for journal in list_journal_paths(root):
        for segment in list_segments(journal):
            if not segment.is_done:
                with contextlib.suppress(FileNotFoundError):
                    total_bytes += segment.path.stat().st_size
    return total_bytes
