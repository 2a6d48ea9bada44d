"""The shipper's end of its links to the workers of its data dir; the lines are told in edge/replication.py.

A place is told to the workers of its journal, also to one that says only later which its journal is.
"""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from edge.replication import MAX_LINE_BYTES, SOCKET_NAME, Lines
from storage.journal.segments import Position

MAX_LINKS = 256
"""More than a node has workers and their successors."""
MAX_JOURNALS = 1024
"""Of so many journals the place is remembered, those acknowledged last."""
_JOURNAL = re.compile(rb"journal ([0-9a-f]{32})")


class WorkerLinks:
    """The workers that are connected. `poked` is set when one has written what somebody waits for."""

    def __init__(self) -> None:
        self.poked = asyncio.Event()
        self._is_up = False
        self._ends: set[_ShipperEnd] = set()
        self._places: dict[UUID, Position] = {}
        self._news: set[UUID] = set()
        self._server: asyncio.Server | None = None
        self._directory = -1

    @property
    def link_count(self) -> int:
        """Connections open now, whoever's."""
        return len(self._ends)

    async def start(self, data_dir: Path) -> None:
        """Listen in `data_dir`, where no other shipper may be; OSError when that is not possible."""
        self._directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before `bind`, so that it is never another's to open
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET_NAME, dir_fd=self._directory)  # a predecessor's: one that was killed left it
            listener.bind(f"/proc/self/fd/{self._directory}/{SOCKET_NAME}")
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _ShipperEnd(self._ends, self._welcome, self.poked), sock=listener
            )
        except OSError:
            listener.close()
            os.close(self._directory)
            raise

    def acknowledged(self, journal_id: UUID, place: Position) -> None:
        """The stream has all of the journal before `place`. Told at the end of this loop turn, the last place only."""
        self._places.pop(journal_id, None)
        self._places[journal_id] = place
        if len(self._places) > MAX_JOURNALS:
            del self._places[next(iter(self._places))]
        if not self._news:
            asyncio.get_running_loop().call_soon(self._tell_news)
        self._news.add(journal_id)

    def set_stream_up(self, is_up: bool) -> None:
        """Whether the stream can be written to, for all workers."""
        if is_up != self._is_up:
            self._is_up = is_up
            for end in list(self._ends):
                if end.journal_id:
                    end.say(self._weather)

    async def close(self) -> None:
        """Hang up on everybody. The socket's file may stay: nobody answers there."""
        if self._server is None:
            return
        self._server.close()
        for end in list(self._ends):
            end.hang_up()
        await asyncio.sleep(0)
        self._server = None
        os.close(self._directory)

    def _tell_news(self) -> None:
        news, self._news = self._news, set()
        for end in list(self._ends):
            if end.journal_id in news:
                self._tell_place(end)

    def _tell_place(self, end: "_ShipperEnd") -> None:
        place = end.journal_id and self._places.get(end.journal_id)
        if place:
            end.say(b"place %d %d" % place)

    @property
    def _weather(self) -> bytes:
        return b"up" if self._is_up else b"down"

    def _welcome(self, end: "_ShipperEnd") -> None:
        """The place first: with it the worker knows whether the stream has to catch up. And there may be work."""
        self._tell_place(end)
        end.say(self._weather)
        self.poked.set()


class _ShipperEnd(Lines):
    """A worker's connection, or whoever's it is; one of `ends` while it lasts."""

    def __init__(
        self, ends: "set[_ShipperEnd]", welcome: "Callable[[_ShipperEnd], None]", poked: asyncio.Event
    ) -> None:
        super().__init__()
        self.journal_id: UUID | None = None
        self._ends = ends
        self._welcome = welcome
        self._poked = poked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._ends.add(self)
        if len(self._ends) > MAX_LINKS:
            self.hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._ends.discard(self)

    def take(self, line: bytes) -> None:
        if line == b"poke" and self.journal_id:
            self._poked.set()
        elif (match := _JOURNAL.fullmatch(line)) and not self.journal_id:
            self.journal_id = UUID(match[1].decode())
            self._welcome(self)
        else:
            raise ValueError(f"not a line of a worker: {line[:MAX_LINE_BYTES]!r}")
