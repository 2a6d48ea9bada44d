"""The drain in the test's own process: journals by the real writer, stored by the real drain, stepped by hand or running.

`Scribe` is a worker as the journal sees it. `Station` is one drain; `turn` makes it do by hand what its loop does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from edge.admin.catalog_apply import apply_text
from edge.counters import Counters
from edge.drain.process import Drain
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.tracking.click_id import ClickIds
from storage.journal.events import Click, Conversion, Heartbeat, Impression, Outcome, Session, Via, encode
from storage.journal.segments import Position
from storage.journal.writer import JournalWriter
from storage.postgres.connection import Connection, connect
from storage.postgres.rollups import begin_rollups
from tests.node import eventually

SECRET = "a secret of the tests' own"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CATALOG = """
[[advertisers]]
id = 1
name = "Plain"
[[advertisers]]
id = 2
name = "Guarded"
security_token = "s3cret"
allowed_ips = ["198.51.100.0/24"]
[[partners]]
id = 2
name = "Deal Blog"
[[partners]]
id = 3
name = "Coupon Corner"
[[offers]]
id = 17
advertiser_id = 1
name = "Flat"
url = "https://shop.example.com/?clickid={transaction_id}"
payout = "5.00"
revenue = "7.50"
[[offers.goals]]
id = 1
name = "lead"
payout = "1.00"
revenue = "1.50"
[[offers.overrides]]
aff_id = 3
payout = "6.00"
"""


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Unleased:
    """A lease of all milliseconds there are."""

    start_ms = 0
    through_ms = 1 << 48

    def cover(self, ms: int) -> None:
        """Nothing to do."""


class Written(NamedTuple):
    """An event and where its frame ends."""

    kind: str
    id: bytes
    end: Position


class Scribe:
    """One worker's journal. Nothing is minted twice; an event may be given an earlier time than now, in order."""

    def __init__(
        self,
        data_dir: Path,
        *,
        node: int = 0,
        worker: int = 0,
        max_segment_bytes: int = 1 << 20,
        revision: int = 1,
        partitions: int = 0,
    ) -> None:
        self.writer = JournalWriter.create(
            data_dir / "journal",
            node_id=node,
            worker_id=worker,
            now_ms=now_ms(),
            max_segment_bytes=max_segment_bytes,
            partitions=partitions,
        )
        self.ids = ClickIds([SECRET], node, worker, Unleased())
        self.revision = revision
        self.written: list[Written] = []
        self.sessions: dict[bytes, bytes] = {}

    def raw(self, payload: bytes, kind: str = "raw", event_id: bytes = b"") -> None:
        """Any payload."""
        assert self.writer.write([payload]) == 1
        self.written.append(Written(kind, event_id, self.writer.appended))

    def beat(self, ms: int) -> None:
        """A heartbeat: every later id is of `ms` or above."""
        self.raw(encode(Heartbeat(ms)), "beat")

    def session(self, **fields: Any) -> Session:
        """A session, its id minted now unless `ms` says otherwise."""
        values: dict[str, Any] = {
            "revision": self.revision,
            "offer_id": 17,
            "aff_id": 2,
            "landing_page_id": 0,
            "creative_id": 0,
            "contact_id": "",
            "ip": "203.0.113.77",
            "user_agent": CHROME,
        }
        click_id = fields.pop("click_id", None) or self.ids.mint(fields.pop("ms", now_ms()))
        session = Session(click_id=click_id, **{**values, **fields})
        self.sessions[click_id] = encode(session)
        return session

    def click(
        self,
        session: Session | None = None,
        *,
        outcome: Outcome = "redirected",
        reason: str = "",
        flags: list[str] | None = None,
        params: dict[str, str] | None = None,
        visitor: bytes = b"",
        **fields: Any,
    ) -> bytes:
        """A click; `visitor`: its cookie's first id; `fields` are the session's. Its id."""
        session = session or self.session(**fields)
        event = Click(session, outcome, reason, flags or [], "", params or {}, "", "", visitor)
        self.raw(encode(event), "click", session.click_id)
        return session.click_id

    def impression(
        self,
        *,
        flags: list[str] | None = None,
        params: dict[str, str] | None = None,
        visitor: bytes = b"",
        **fields: Any,
    ) -> bytes:
        """An impression; its id."""
        session = self.session(**fields)
        event = Impression(session, "recorded", "", flags or [], "", params or {}, "", "", visitor)
        self.raw(encode(event), "impression", session.click_id)
        return session.click_id

    def convert(
        self,
        click_id: bytes,
        *,
        ms: int = 0,
        via: Via = "postback",
        session: bytes = b"",
        transaction_id: str | None = None,
        goal_id: int = 0,
        offer_id: int = 0,
        revision: int = 0,
        ip: str = "198.51.100.7",
        is_external: bool = False,
        **params: str,
    ) -> bytes:
        """A conversion of that click, received at `ms` or now; its id. `session`: what the worker still knew."""
        received_ms = ms or now_ms()
        conversion_id = self.ids.mint(min(received_ms, now_ms()))
        event = Conversion(
            conversion_id,
            revision or self.revision,
            received_ms,
            via,
            click_id.hex() if transaction_id is None else transaction_id,
            click_id,
            session,
            offer_id,
            goal_id,
            params,
            ip,
            "postback/1",
            "",
            is_external,
        )
        self.raw(encode(event), "conversion", conversion_id)
        return conversion_id

    def close(self) -> None:
        """The worker ends: its journal is final."""
        self.writer.close()

    def ids_before(self, position: Position, kind: str) -> list[bytes]:
        """Of the events that end at or before `position`, those of that kind."""
        return sorted(one.id for one in self.written if one.kind == kind and one.end <= position)


def compare(stored: Iterable[bytes], written: Iterable[bytes]) -> list[str]:
    """What is missing, too much or there twice, a line each, at most ten; empty: the same ids, each once."""
    left, right = Counter(stored), Counter(written)
    faults = [
        f"{one.hex()}: {left[one]} times instead of {right[one]}" for one in left | right if left[one] != right[one]
    ]
    return sorted(faults)[:10]


def make_settings(data_dir: Path, url: str, **settings: Any) -> Settings:
    """Settings of a drain with small batches."""
    values: dict[str, Any] = {"batch_rows": 1000, "batch_interval_ms": 5, "secrets": (SECRET,)}
    return Settings(data_dir=str(data_dir), database_url=url, **{**values, **settings})


class Station:
    """One drain process's inside."""

    def __init__(self, settings: Settings, *, slot: int = 0) -> None:
        self.counters = Counters.private()
        self.settings = settings
        self.drain = Drain(ChildOrders("drain", slot, settings, -1, []), self.counters)

    async def turn(self, conn: Connection) -> int:
        """Find new journals, store what there is in all of them, then what need wait no longer; how many entries."""
        await self.drain._feeds.discover(conn)
        stored = 0
        while entries := sum([await self.drain._advance(conn, feed) for feed in self.drain._feeds]):
            stored += entries
        while decided := await self.drain._store.settle_due(conn):
            stored += decided
        return stored

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Station"]:
        """The real loop, reconnecting and all; stopped as by SIGTERM in the end."""
        task = asyncio.create_task(self.drain.run())
        try:
            yield self
        finally:
            self.drain._stop.set()
            try:
                await task
            finally:
                await self.drain.close()


class Bench:
    """A data dir, a database with a catalog in it, and who writes and reads there."""

    def __init__(self, data_dir: Path, url: str, conn: Connection) -> None:
        self.data_dir = data_dir
        self.url = url
        self.conn = conn
        """For looking, not for draining."""
        self.stations: dict[int, Station] = {}
        """For tests that keep some."""
        self._scribes: list[Scribe] = []
        self._connections: list[Connection] = []

    async def connect(self) -> Connection:
        """One more connection. It ends with the bench, else a test that fails would hang: uvloop waits for it."""
        conn = await connect(self.url)
        self._connections.append(conn)
        return conn

    def scribe(self, **options: Any) -> Scribe:
        """A new worker's journal."""
        scribe = Scribe(self.data_dir, **options)
        self._scribes.append(scribe)
        return scribe

    def station(self, *, slot: int = 0, url: str = "", **settings: Any) -> Station:
        """A drain of this data dir."""
        return Station(make_settings(self.data_dir, url or self.url, **settings), slot=slot)

    async def drain(self, station: Station | None = None, **settings: Any) -> int:
        """One turn of `station`, or of a drain that has only just started, on a connection of its own."""
        conn = await connect(self.url)
        try:
            return await (station or self.station(**settings)).turn(conn)
        finally:
            await conn.close()

    async def apply(self, text: str, *, prune: bool = False) -> int:
        """Change the catalog; its revision."""
        return (await apply_text(self.conn, text, "test.toml", prune=prune)).revision

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, as tuples."""
        return [tuple(row) for row in await self.conn.fetch(query, *arguments)]

    async def value(self, query: str, *arguments: Any) -> Any:
        """The one value of a query."""
        return await self.conn.fetchval(query, *arguments)

    async def verdict(self, conversion_id: bytes) -> tuple[str, str]:
        """Status and reason of a stored conversion; both empty while there is none."""
        row = await self.conn.fetchrow(
            "SELECT status, reason FROM conversions WHERE conversion_id = $1", UUID(bytes=conversion_id)
        )
        return (row["status"], row["reason"]) if row else ("", "")

    async def ids(self, table: str = "clicks") -> list[bytes]:
        """The ids in a table, in order."""
        column = "conversion_id" if table.startswith("conversion") else "click_id"
        return sorted(row[0].bytes for row in await self.conn.fetch(f"SELECT {column} FROM {table}"))

    async def position(self, scribe: Scribe) -> Position:
        """How far a journal is stored."""
        row = await self.conn.fetchrow(
            "SELECT segment, byte_offset FROM journal_positions WHERE journal_id = $1", scribe.writer.journal_id
        )
        return Position(*row)

    def close(self) -> None:
        """End all journals and connections."""
        for scribe in self._scribes:
            scribe.close()
        for conn in [*self._connections, self.conn]:
            conn.terminate()


@asynccontextmanager
async def open_bench(data_dir: Path, url: str, catalog: str = CATALOG) -> AsyncIterator[Bench]:
    """A bench whose catalog is at revision 1."""
    data_dir.mkdir(parents=True, exist_ok=True)
    conn = await connect(url)
    bench = Bench(data_dir, url, conn)
    try:
        await bench.apply(catalog)
        await roll_up_ahead(conn)
        yield bench
    finally:
        bench.close()


async def roll_up_ahead(conn: Connection) -> None:
    """As if all hours until tomorrow were rolled up: everything comes late, and recounts look at the coarser sums too."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await begin_rollups(conn, "Europe/Berlin", tomorrow)


async def until(check: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Until the awaited `check` says something true."""

    async def is_so() -> bool:
        return bool(await check())

    await eventually(is_so, timeout_s)
