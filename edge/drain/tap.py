"""A drain's connection to the stream, made in the background: while it is away the drain goes on with what it has."""

import asyncio
import time
from contextlib import suppress

import structlog

from edge.counters import Counters, cell
from edge.logs import RateLimited
from edge.settings import Settings
from edge.stream_settings import stream_options
from storage.stream.connection import StreamConnection, connect_stream
from storage.stream.reading import StreamReader
from storage.stream.resending import ask_to_resend
from storage.stream.servers import StreamAway, StreamUnusable
from storage.stream.shipments import Resend

quietly = RateLimited(structlog.get_logger(), 60.0)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0

_UP = cell("edge_stream_up")


class Tap:
    """The connection, when there is one."""

    def __init__(self, settings: Settings, name: str, counters: Counters) -> None:
        self._options = stream_options(settings)
        self._name = name
        self._cells = counters.cells
        self._opening: asyncio.Task[StreamConnection] | None = None
        self._connection: StreamConnection | None = None
        self._next_s = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self.reader: StreamReader | None = None
        """To read with; None while the stream is away."""
        self.stream = ""
        """When the stream was made."""

    async def look(self) -> StreamReader | None:
        """The reader, if there is one now; without any, an attempt is under way. Never waits long."""
        if self._connection is not None:
            if not self._connection.closed.is_set():
                return self.reader
            await self.drop("the connection was closed")
        if self._opening is None and time.monotonic() >= self._next_s:
            self._opening = asyncio.create_task(self._open())
        if self._opening is None or not self._opening.done():
            return None
        opening, self._opening = self._opening, None
        try:
            self._connection = opening.result()
        except (StreamAway, StreamUnusable) as error:
            self._wait(str(error))
            return None
        self.reader = StreamReader(self._connection)
        self._cells[_UP] = 1
        return self.reader

    def is_well(self) -> None:
        """Something was read: the next failure is the first again."""
        self._backoff_s = FIRST_BACKOFF_S

    async def ask(self, request: Resend) -> None:
        """Ask the shippers to send again. StreamAway."""
        if self._connection is not None:
            await ask_to_resend(self._connection, request)

    async def drop(self, why: str) -> None:
        """Begin anew in a while."""
        await self.close()
        self._wait(why)

    async def close(self) -> None:
        """Let go of the connection, or of the attempt."""
        self._cells[_UP] = 0
        connection, self._connection, self.reader = self._connection, None, None
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError, StreamAway, StreamUnusable):
                connection = await self._opening
            self._opening = None
        if connection is not None:
            await connection.close()

    async def _open(self) -> StreamConnection:
        connection = await connect_stream(self._options, self._name, inboxes="drain")
        try:
            self.stream = await connection.find_stream()
        except BaseException:
            await connection.close()
            raise
        return connection

    def _wait(self, why: str) -> None:
        quietly.warning("stream_away", error=why)
        self._next_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)
