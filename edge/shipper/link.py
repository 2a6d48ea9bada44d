"""The shipper's end of the link to this machine's workers."""

import asyncio
from pathlib import Path
from uuid import UUID

from storage.journal.segments import Position


class WorkerLinks:
    """To be replaced at the merge."""

    def __init__(self) -> None:
        self.poked = asyncio.Event()

    async def start(self, data_dir: Path) -> None:
        """Listen."""

    def acknowledged(self, journal_id: UUID, place: Position) -> None:
        """Tell the workers of that journal."""

    def set_stream_up(self, is_up: bool) -> None:
        """Tell all workers."""

    async def close(self) -> None:
        """Let go."""
