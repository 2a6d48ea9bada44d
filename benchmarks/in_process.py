"""A worker's public port in this process: the real lane, handlers, sessions and journal, with connections to nobody.

Steadier than a server on a busy machine: `time.thread_time` around it counts this thread's CPU alone, no socket's.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.counters import Counters
from edge.http.port import PublicPort
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import encode_item
from edge.tracking.catalog_file import read_catalog
from edge.tracking.click_id import ClickIds
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.worker import MAX_SEGMENT_BYTES
from storage.journal.commit import GroupCommit
from storage.journal.writer import JournalWriter

CONNECTIONS = 64
"""Fed in one turn of the loop, as those of a busy worker are."""
REDIRECT = b"HTTP/1.1 302 "
_SECRET = "a secret of the benchmark's own"
_NO_LIMIT_BYTES = 2**50


class _Forever:
    """A lease on every id: nobody else mints any here."""

    start_ms = 0
    through_ms = 2**47

    def cover(self, ms: int) -> None:
        """Never needed."""


class _Transport:
    """What the lane writes to; it keeps the last answer, and counts those with what is `wanted` in them."""

    wanted = REDIRECT
    found = 0

    def __init__(self, address: str) -> None:
        self._address = address
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data
        _Transport.found += _Transport.wanted in data

    def get_extra_info(self, name: str) -> Any:
        return (self._address, 40_000) if name == "peername" else None

    def pause_reading(self) -> None:
        """There is nothing to pause."""

    def resume_reading(self) -> None:
        """Nor to resume."""

    def close(self) -> None:
        """Nor to close."""


def load_catalog(text: str) -> Catalog:
    """A catalog file, compiled as a worker has it."""
    items = read_catalog(text, "the benchmark's catalog", Catalog.empty()).items()
    return Catalog.empty().changed(1, [(kind, number, encode_item(item)) for kind, number, item in items])


class InProcessWorker:
    """Used in an `async with`. Its journal is a real one, in a folder of its own below `directory`, removed at the end."""

    def __init__(
        self, catalog: Catalog, *, session_capacity: int, directory: str, durable_conversions: bool = True
    ) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=directory))
        self.sessions: Sessions[Any] = Sessions(session_capacity)
        self.counters = Counters.private()
        self._catalog = catalog
        self._durable_conversions = durable_conversions

    async def __aenter__(self) -> Self:
        writer = JournalWriter.create(
            self._root, node_id=0, worker_id=0, now_ms=time.time_ns() // 1_000_000, max_segment_bytes=MAX_SEGMENT_BYTES
        )
        self._journal = GroupCommit(
            writer, max_bytes=_NO_LIMIT_BYTES, fsync_interval_ms=50, observe_sync=lambda _: None, on_broken=_raise
        )
        ids = ClickIds([_SECRET], 0, 0, _Forever())
        self._port = PublicPort(
            EdgeState(self._catalog, ids, self.sessions, self.counters),
            self._journal,
            readiness=lambda: (200, "ready"),
            on_broken=_raise,
            trusted=(),
            durable_clicks=False,
            durable_conversions=self._durable_conversions,
            max_connections=1000,
        )
        self._transports = [_Transport("127.0.0.1") for _ in range(CONNECTIONS)]
        self._kept = [self._connect(transport) for transport in self._transports]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._journal.close()
        shutil.rmtree(self._root, ignore_errors=True)

    async def serve(self, requests: Sequence[bytes], wanted: bytes = REDIRECT) -> None:
        """Answer them on 64 kept connections. RuntimeError unless `wanted` is in each answer."""
        before, _Transport.wanted = _Transport.found, wanted
        for start in range(0, len(requests), CONNECTIONS):
            for connection, request in zip(self._kept, requests[start : start + CONNECTIONS], strict=False):
                connection.data_received(request)
            await _turn()
        _check(len(requests), _Transport.found - before)

    async def answers(self, requests: Sequence[bytes]) -> list[bytes]:
        """What is said to at most 64 requests, one on each connection."""
        await self.serve(requests)
        return [transport.last for transport in self._transports[: len(requests)]]

    async def serve_visitors(self, requests: Iterable[bytes], addresses: Sequence[str]) -> None:
        """Answer each on a connection and from an address of its own. RuntimeError unless each is redirected."""
        before, count, _Transport.wanted = _Transport.found, 0, REDIRECT
        for visits in _bursts(zip(requests, cycle(addresses), strict=False)):
            # An address of its own, as a socket's is: no string that other connections share.
            connections = [self._connect(_Transport("".join(address))) for _, address in visits]
            for connection, (request, _) in zip(connections, visits, strict=True):
                connection.data_received(request)
            await _turn()
            for connection in connections:
                connection.connection_lost(None)
            count += len(visits)
        _check(count, _Transport.found - before)

    def _connect(self, transport: _Transport) -> Any:
        connection: Any = self._port()
        connection.connection_made(transport)
        return connection


async def _turn() -> None:
    """Let the loop write the journal and the answers; the second time is for what the first has called for."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _bursts(visits: Iterable[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    iterator = iter(visits)
    while burst := list(islice(iterator, CONNECTIONS)):
        yield burst


def _check(asked: int, found: int) -> None:
    if found != asked:
        raise RuntimeError(f"{asked} requests, {found} answered with {_Transport.wanted!r}")


def _raise(error: BaseException) -> None:
    raise error
