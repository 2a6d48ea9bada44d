"""A worker's public port in the test's own process: a real socket, a real journal and id lease, no Postgres."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from edge.counters import cell
from edge.http.port import PublicPort
from edge.tracking.state import EdgeState
from storage.journal.commit import DISK, PROCESS, GroupCommit
from storage.journal.events import Click, Conversion, Event, Heartbeat, Impression, Session, decode
from storage.journal.filesystem import REAL_FILESYSTEM, Filesystem
from storage.journal.reader import JournalReader
from storage.journal.writer import JournalWriter
from storage.leases import IdLease
from tests.wire.client import Reply, Wire
from tests.wire.edge_state import CATALOG, build_state

E = TypeVar("E", Click, Impression, Conversion)


class Port:
    """What a test sees of the port: its address, what it counted, and its journal."""

    def __init__(self, state: EdgeState, journal: GroupCommit, directory: Path, broken: list[BaseException]) -> None:
        self.state = state
        self.journal = journal
        self.broken = broken
        """What `on_broken` was called with; the worker would have ended at the first."""
        self.readiness = (200, "ready")
        self.number = 0
        self.public: PublicPort
        self._directory = directory

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.number}"

    @asynccontextmanager
    async def wire(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
        """A new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, ssl=tls)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    async def get(self, target: str, *headers: str, method: str = "GET") -> Reply:
        """One request on a connection of its own."""
        async with self.wire() as wire:
            wire.get(target, *headers, method=method)
            return await wire.reply(has_body=method != "HEAD")

    async def try_get(self, target: str) -> int:
        """The status of a request on a connection of its own; 0 when that is closed instead."""
        try:
            return (await self.get(target)).status
        except EOFError:
            return 0

    async def post(self, target: str, body: bytes, content_type: str = "application/x-www-form-urlencoded") -> Reply:
        """One POST on a connection of its own."""
        async with self.wire() as wire:
            wire.post(target, body, content_type)
            return await wire.reply()

    async def click(self, query: str = "offer_id=17&aff_id=2") -> str:
        """A click's id, as its event has it."""
        await self.get(f"/aff_c?{query}")
        return session_of(self.last(Click)).click_id.hex()

    def events(self) -> list[Event]:
        """All that the journal holds, decoded; heartbeats left out."""
        reader = JournalReader(self._directory)
        try:
            batch = reader.read(1_000_000, 2**30)
        finally:
            reader.close()
        assert batch.damaged == []
        events = [decode(record.payload) for record in batch.records]
        return [event for event in events if not isinstance(event, Heartbeat)]

    def last(self, kind: type[E]) -> E:
        """The newest event of that kind."""
        return [event for event in self.events() if isinstance(event, kind)][-1]

    def count(self, name: str, *labels: str) -> int:
        """A counter's value."""
        return self.state.counters.cells[cell(name, *labels)]


def session_of(event: Click | Impression) -> Session:
    """The session inside, decoded."""
    return event.session


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    catalog: str = CATALOG,
    fallback: str = "",
    honour_gpc: bool = True,
    honour_dnt: bool = False,
    trusted: str = "",
    durable_clicks: int = PROCESS,
    durable_conversions: int = DISK,
    disk: Filesystem = REAL_FILESYSTEM,
    max_bytes: int = 2**30,
    is_lane_on: bool = True,
    has_proxy: bool = False,
    max_connections: int = 1000,
    client_connections: int = 1000,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Port]:
    """A port that answers from `catalog`; its journal and lease stand in `directory`."""
    now_ms = time.time_ns() // 1_000_000
    lease = IdLease.open(directory / "ids" / "worker-1.lease", now_ms)
    writer = JournalWriter.create(
        directory / "journal", node_id=3, worker_id=1, now_ms=now_ms, max_segment_bytes=2**20, filesystem=disk
    )
    broken: list[BaseException] = []
    journal = GroupCommit(
        writer, max_bytes=max_bytes, fsync_interval_ms=50, observe_sync=lambda _: None, on_broken=broken.append
    )
    state = build_state(catalog, lease, fallback=fallback, honour_gpc=honour_gpc, honour_dnt=honour_dnt)
    port = Port(state, journal, writer.directory, broken)
    public = PublicPort(
        state,
        journal,
        readiness=lambda: port.readiness,
        on_broken=broken.append,
        trusted=(ip_network(trusted),) if trusted else (),
        durable_clicks=durable_clicks,
        durable_conversions=durable_conversions,
        is_lane_on=is_lane_on,
        has_proxy=has_proxy,
        max_connections=max_connections,
        client_connections=client_connections,
    )
    port.public = public
    watching = asyncio.create_task(public.watch())
    server = await public.listen(socket.create_server(("127.0.0.1", 0)), tls)
    port.number = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        watching.cancel()
        await public.shutdown(0.1 if broken else 1)
        if not broken:  # else the worker would be gone; the test's loop ends what is left
            await journal.close()
        lease.close()


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def logged() -> Iterator[list[str]]:
    """What any library logs meanwhile at the level that a worker prints (warning and above)."""
    handler = _Kept()
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield handler.lines
    finally:
        logging.getLogger().removeHandler(handler)
