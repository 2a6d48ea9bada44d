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
from typing import NamedTuple, TypeVar

from edge.counters import Counters, cell
from edge.http.port import PublicPort
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import encode_item
from edge.tracking.catalog_file import read_catalog
from edge.tracking.click_id import ClickIds, Lease
from edge.tracking.headers import read_headers
from edge.tracking.macros import compile_template
from edge.tracking.parameters import parse_query
from edge.tracking.redirects import Hops
from edge.tracking.request import Request
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.tracking.visitors import Visitors
from storage.journal.commit import DISK, PROCESS, GroupCommit
from storage.journal.events import Click, Conversion, Event, Heartbeat, Impression, Session, decode
from storage.journal.filesystem import REAL_FILESYSTEM, Filesystem
from storage.journal.reader import JournalReader
from storage.journal.writer import JournalWriter
from storage.leases import IdLease

SECRET = "a secret of the tests' own"
REPLY_S = 20.0
CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"

[[partners]]
id = 2
name = "Deal Blog & Söhne"

[[partners]]
id = 3
name = "Blocked"
status = "blocked"

[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
url = "https://shop.example.com/landing?clickid={transaction_id}&p={aff_id}&s={aff_sub}"
payout = "5.00"
goals = [{ id = 1, name = "lead" }, { id = 2, name = "sale, first" }]
landing_pages = [{ id = 1, url = "https://pages.example.com/a?clickid={transaction_id}" }]

[[offers]]
id = 18
advertiser_id = 1
name = "First click wins"
url = "https://first.example.com/{source}/{transaction_id}"
attribution = "first"
click_window = "14d"

[[offers]]
id = 20
advertiser_id = 1
name = "Paused"
url = "https://paused.example.com/"
status = "paused"
redirect_offer_id = 21

[[offers]]
id = 21
advertiser_id = 1
name = "Expired"
url = "https://expired.example.com/"
status = "expired"
redirect_offer_id = 22

[[offers]]
id = 22
advertiser_id = 1
name = "Over"
url = "https://over.example.com/"
expires_at = "2020-01-01T00:00:00Z"
redirect_offer_id = 17

[[offers]]
id = 24
advertiser_id = 1
name = "Paused without a stand-in"
url = "https://paused.example.com/"
status = "paused"

[[aliases]]
path = "SL2"
kind = "click"
params = { offer_id = 17, aff_id = 2, aff_sub = "frozen" }

[[aliases]]
path = "IM1"
kind = "impression"
params = { offer_id = 17, aff_id = 2 }

[[aliases]]
path = "SP1"
kind = "postback"
params = { offer_id = 17 }

[[aliases]]
path = "PX1"
kind = "pixel"
params = { offer_id = 17 }

[[aliases]]
path = "GP1"
kind = "goal_postback"
params = { goal_id = 1 }

[[aliases]]
path = "GL1"
kind = "goal_pixel"
params = { offer_id = 17, goal_id = 1 }
"""
DELIVERY = """
[[offers]]
id = 40
advertiser_id = 1
name = "Rotated"
url = "https://shop.example.com/own"
landing_pages = [
  { id = 1, url = "https://pages.example.com/a?c={transaction_id}", weight = 70 },
  { id = 2, url = "https://pages.example.com/b?c={transaction_id}", weight = 30 },
  { id = 3, url = "https://pages.example.com/c?c={transaction_id}" },
]

[[offers]]
id = 41
advertiser_id = 1
name = "Ruled"
url = "https://shop.example.com/own?c={transaction_id}"
redirect_offer_id = 17
landing_pages = [{ id = 4, url = "https://pages.example.com/fr?c={transaction_id}" }]
rules = [
  { when = { language = ["fr"] }, then = { landing_page_id = 4 } },
  { when = { source = ["other"] }, then = { offer_id = 40 } },
  { when = { source = ["link"] }, then = { url = "https://first.example.com/{source}/{transaction_id}" } },
  { when = { source = ["away"], aff_sub5 = ["now"] }, then = { reject = "not from there" } },
]

[[offers]]
id = 42
advertiser_id = 1
name = "One page"
url = "https://shop.example.com/?q=%22'{source}&c={transaction_id}"
allowed_domains = ["shop.example.com"]
redirect = "single_meta_refresh"

[[offers]]
id = 43
advertiser_id = 1
name = "Two pages"
url = "https://shop.example.com/?q={source}&c={transaction_id}"
allowed_domains = ["shop.example.com"]
redirect = "double_meta_refresh"

[[offers]]
id = 44
advertiser_id = 1
name = "See other"
url = "https://shop.example.com/?c={transaction_id}"
redirect = "303"
allowed_domains = ["shop.example.com", "first.example.com"]
"""
"""Offers whose clicks depend on the click, to be added to CATALOG."""
HOSTS = frozenset(("shop.example.com", "pages.example.com", "first.example.com"))
"""Where a redirect of CATALOG may lead."""

E = TypeVar("E", Click, Impression, Conversion)


def build_catalog(text: str = CATALOG, revision: int = 7) -> Catalog:
    """The catalog of a file, checked as `apply` checks it."""
    items = read_catalog(text, "catalog.toml", Catalog.empty()).items()
    return Catalog.empty().changed(revision, [(kind, item_id, encode_item(item)) for kind, item_id, item in items])


class Unbounded:
    """A lease of all time, for tests without a disk."""

    start_ms = 0
    through_ms = 2**47

    def cover(self, ms: int) -> None:
        """Nothing to do."""


def build_state(
    catalog: Catalog | str = CATALOG,
    lease: Lease | None = None,
    *,
    fallback: str = "",
    honour_gpc: bool = True,
    honour_dnt: bool = False,
) -> EdgeState:
    """What handlers share: worker 1 of node 3, with sessions and counters of its own."""
    return EdgeState(
        build_catalog(catalog) if isinstance(catalog, str) else catalog,
        ClickIds((SECRET,), 3, 1, lease or Unbounded()),
        Sessions(1000),
        Counters.private(),
        compile_template(fallback) if fallback else None,
        honour_gpc,
        honour_dnt=honour_dnt,
        visitors=Visitors(SECRET),
        hops=Hops((SECRET,)),
    )


NOW_MS = 1_800_000_000_000


def request_of(
    query: str = "",
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    path: str = "/aff_c",
    is_https: bool = False,
    now_ms: int = NOW_MS,
) -> Request:
    """A request as the port makes it of what arrives."""
    return Request(method, path, parse_query(query), read_headers((headers or {}).items()), "203.0.113.9", is_https, now_ms)


class Reply(NamedTuple):
    """One response as it stood on the wire; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str:
        """The header's value; "" without one, AssertionError for more than one."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, self.headers
        return values[0] if values else ""


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        """Put `data` on the wire."""
        self._writer.write(data)

    def get(self, target: str, *headers: str, method: str = "GET") -> None:
        """Ask for `target`, which is sent as it is."""
        head = [f"{method} {target} HTTP/1.1", "Host: edge.example", *headers, "", ""]
        self.send("\r\n".join(head).encode("utf-8", "surrogateescape"))

    def post(self, target: str, body: bytes, content_type: str, *headers: str) -> None:
        """Send `body` to `target`."""
        self.get(target, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers, method="POST")
        self.send(body)

    async def reply(self, *, has_body: bool = True) -> Reply:
        """The next response; EOFError when the connection ends instead."""
        async with asyncio.timeout(REPLY_S):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise EOFError from error
            status_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
            length = int(dict(headers).get("content-length", "0")) if has_body else 0
            return Reply(int(status_line.split(" ")[1]), headers, await self._reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Whether the other side ends the connection and says no more."""
        async with asyncio.timeout(REPLY_S):
            try:
                return await self._reader.read(1) == b""
            except ConnectionError:
                return True

    async def is_silent(self, for_s: float) -> bool:
        """Whether nothing arrives for that long."""
        try:
            await asyncio.wait_for(self._reader.read(1), for_s)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Go away."""
        self._writer.close()


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
