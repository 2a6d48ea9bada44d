"""A worker's end of its link to the shipper: what the stream has acknowledged of its journal.

A Unix socket in the data dir; ASCII lines. The worker says `journal <32 hex>` once, then `poke` when it has written what
somebody waits for. The shipper says `place <segment> <byte_offset>`, `up` and `down`. Whoever says anything else is
hung up on. Without a link the stream counts as away.
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import structlog

from edge.counters import Counters, cell
from edge.logs import RateLimited
from edge.metric_families import SYNC_BUCKETS_US
from storage.journal.replicas import UNLINKED, Replicas, ReplicationWatch
from storage.journal.segments import Position

log = structlog.get_logger()

SOCKET_NAME = "shipper.sock"
RECONNECT_S = 0.2
MAX_LINE_BYTES = 64
SAY_S = 10.0
STREAM_AWAY = "the stream is away"
_PLACE = re.compile(rb"place ([0-9]{1,10}) ([0-9]{1,19})")

_CONFIRMED = cell("edge_replicated_answers_total")
_FALLBACKS = cell("edge_replication_fallbacks_total")
_DURATION = cell("edge_replication_seconds")

_quietly = RateLimited(log, SAY_S)


class Lines(asyncio.Protocol):
    """One end of the link, whichever. What `take` calls a ValueError ends the connection, and so does a line too long."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Lines may be said from now on."""
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """No more lines, either way."""
        self.transport = None

    def take(self, line: bytes) -> None:
        """A whole line has come. ValueError: it is none of the link's."""
        raise NotImplementedError

    def say(self, line: bytes) -> None:
        """Send a line; to nobody when the link is gone."""
        if self.transport and not self.transport.is_closing():
            self.transport.write(line + b"\n")

    def hang_up(self) -> None:
        """End the connection."""
        if self.transport:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take the lines that are whole."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            for line in lines:
                self.take(line)
            if len(self._rest) > MAX_LINE_BYTES:
                raise ValueError("a line without an end")
        except ValueError as error:
            _quietly.warning("replication_link_refused", error=str(error))
            self._rest = b""
            self.hang_up()

    def pause_writing(self) -> None:
        """The other end has not read for long. It begins anew when it does."""
        self.hang_up()


class _WorkerEnd(Lines):
    """A connection to the shipper."""

    def __init__(self, journal_id: UUID, replicas: Replicas) -> None:
        super().__init__()
        self.lost = asyncio.Event()
        self._journal_id = journal_id
        self._replicas = replicas

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.say(b"journal " + self._journal_id.hex.encode())

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._replicas.go_down(UNLINKED)
        self.lost.set()

    def take(self, line: bytes) -> None:
        if line == b"up":
            self._replicas.go_up()
        elif line == b"down":
            self._replicas.go_down(STREAM_AWAY)
        elif match := _PLACE.fullmatch(line):
            self._replicas.reach(Position(int(match[1]), int(match[2])))
        else:
            raise ValueError(f"not a line of the shipper: {line[:MAX_LINE_BYTES]!r}")


class ShipperLink:
    """Tells `replicas` what the shipper says of their journal, and the shipper when somebody waits."""

    def __init__(self, data_dir: Path, journal_id: UUID, replicas: Replicas) -> None:
        self._data_dir = data_dir
        self._journal_id = journal_id
        self._replicas = replicas
        self._end: _WorkerEnd | None = None
        replicas.on_waiting = self._poke

    async def run(self) -> None:
        """Be connected, for ever; a link that is lost is made anew within 0.2 s."""
        try:
            while True:
                with contextlib.suppress(OSError):  # no shipper, or not yet
                    await self._follow()
                await asyncio.sleep(RECONNECT_S)
        finally:
            if self._end:
                self._end.hang_up()
            self._replicas.go_down(UNLINKED)

    async def _follow(self) -> None:
        self._end = end = _WorkerEnd(self._journal_id, self._replicas)
        with way_to_shipper(self._data_dir) as path:
            # No socket made here: uvloop 0.22 forgets to detach it when `connection_made` already finds the other end gone,
            # and its object then closes, later, whoever's descriptor has its number.
            await asyncio.get_running_loop().create_unix_connection(lambda: end, path)
        await end.lost.wait()

    def _poke(self) -> None:
        """The shipper has work; unless it has not read of the last yet, then it will see all of it."""
        end = self._end
        if end and end.transport and not end.transport.get_write_buffer_size():
            end.say(b"poke")


@contextlib.contextmanager
def way_to_shipper(data_dir: Path) -> Iterator[str]:
    """A short path to the shipper's socket, while it is needed: the data dir's own may be of any length."""
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


class ReplicationCounts(ReplicationWatch):
    """Counts how answers left, and says when they begin to fall back and when that is over."""

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._said_s = float("-inf")
        self._is_said = False
        self._fallbacks = 0

    def confirmed(self, answers: int, duration_us: float) -> None:
        """Count them, each with its duration."""
        self._counters.cells[_CONFIRMED] += answers
        self._counters.observe(_DURATION, SYNC_BUCKETS_US, duration_us, answers)

    def fell_back(self, answers: int, reason: str) -> None:
        """Count them; the first is logged, but no such story begins twice within ten seconds."""
        self._counters.cells[_FALLBACKS] += answers
        self._fallbacks += answers
        if self._fallbacks == answers and self._clock() - self._said_s >= SAY_S:
            self._said_s = self._clock()
            self._is_said = True
            log.warning("replication_fell_back", reason=reason)

    def came_back(self) -> None:
        """The end of a story that was begun."""
        if self._is_said:
            log.info("replication_back", fallbacks=self._fallbacks)
        self._fallbacks, self._is_said = 0, False
