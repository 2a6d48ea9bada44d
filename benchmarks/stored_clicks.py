"""What it costs the drain to store a batch of clicks in a table that holds many already; a part of `growth`.

Each size has a server of its own, filled with made-up clicks of today, which is where the drain's go too: the
partition's primary key is as deep as it gets. Clicks made by the real handlers are then stored by the process's own
`Drain`, the sizes taking turns.
"""

import asyncio
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.drain import Backlog, Bench
from benchmarks.serving import cpu_of_family
from benchmarks.traffic import Traffic, catalog_text
from edge.admin.catalog_apply import apply_text
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, connect
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate
from storage.postgres.partitions import Partitions

_SECRET = "a secret of the benchmark's own"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BACKEND_ENDS_S = 0.3
_DAY_S = 86_400
# A click of every row's usual width, its id's millisecond spread over the day so far.
_FILL = """
INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, source, aff_sub1, aff_sub2, aff_click_id, ip, country,
                    region, city, user_agent, device_type, os, browser, language, referrer, visitor, currency, outcome,
                    catalog_revision)
SELECT (lpad(to_hex(ms), 12, '0') || substr(hash, 1, 20))::uuid, to_timestamp(ms / 1000.0), 0, number % 50 + 1,
       number % 200 + 1, 'site' || number % 300, (number % 500)::text, 'banner-' || number % 7, substr(hash, 1, 24),
       '10.0.0.0'::inet + number % 50000, 'DE', 'BE', 'City ' || number % 400,
       'Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/' || number % 2000,
       'mobile', 'Android 14', 'Chrome', 'en-US,en;q=0.9', 'https://blog.example.com/', hash::uuid, 'USD', 'redirected', 1
FROM (SELECT number, $1::bigint + number * $2::bigint / $3::bigint AS ms, md5(number::text) AS hash
      FROM generate_series(0, $3::bigint - 1) AS number) AS made
"""


class DrainCost(NamedTuple):
    """Of one batch, microseconds per click."""

    wall_us: float
    drain_cpu_us: float
    server_cpu_us: float


@dataclass
class FilledTable:
    """One server whose `clicks` holds `size` rows, and what a drain needs to add to them."""

    size: int
    conn: Connection
    server: EmbeddedPostgres
    settings: Settings
    catalog: Catalog
    backlog: Backlog

    async def drain(self, count: int) -> DrainCost:
        """Store `count` more clicks with a fresh drain. RuntimeError unless each is there afterwards."""
        self.backlog.write(count)
        # One drain at a time: each takes over the process's SIGTERM.
        bench = Bench(self.conn, self.settings, self.backlog, self.catalog)
        stored = await self._count()
        gc.collect()
        began_s = self._server_cpu_s()
        elapsed_s = await bench.drain(count)
        await asyncio.sleep(_BACKEND_ENDS_S)
        server_s = self._server_cpu_s() - began_s
        if await self._count() - stored != count:
            raise RuntimeError(f"{await self._count() - stored} rows more, not {count}")
        return DrainCost(*(seconds / count * 1e6 for seconds in (elapsed_s, bench.cpu_s["drain"], server_s)))

    async def _count(self) -> int:
        found: int = await self.conn.fetchval("SELECT sum(gross_clicks)::bigint FROM stats_hourly") or 0
        return found

    def _server_cpu_s(self) -> float:
        """Of the server with its backends, those that have ended too."""
        pid = self.server.pid
        if pid is None:
            raise RuntimeError("the server has ended")
        ended_ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
        return sum(cpu_of_family(pid)) + sum(map(int, ended_ticks)) / _TICKS_PER_S


def measure_stored(sizes: Sequence[int], clicks: int, rounds: int, directory: str) -> dict[int, list[DrainCost]]:
    """The costs by size, one per round; a first batch of each is left out."""
    root = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=directory))
    try:
        # As root the servers run as another user, who must get there.
        root.chmod(0o711)
        for size in sizes:
            (root / str(size)).mkdir(mode=0o711)
        return uvloop.run(_measure(sizes, clicks, rounds, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(sizes: Sequence[int], clicks: int, rounds: int, root: Path) -> dict[int, list[DrainCost]]:
    costs: dict[int, list[DrainCost]] = {size: [] for size in sizes}
    async with AsyncExitStack() as stack:
        tables = [await _fill(size, root / str(size), stack) for size in sizes]
        for number in range(rounds + 1):
            for table in tables if number % 2 else reversed(tables):
                cost = await table.drain(clicks)
                if number:
                    costs[table.size].append(cost)
    return costs


async def _fill(size: int, directory: Path, stack: AsyncExitStack) -> FilledTable:
    traffic = Traffic()
    traffic.write_places(directory / "places.mmdb")
    settings = Settings(data_dir=str(directory), secrets=(_SECRET,), geoip_db=str(directory / "places.mmdb"))
    server = EmbeddedPostgres(directory)
    stack.push_async_callback(server.stop)
    conn = await connect(await server.start(), command_timeout_s=3600)
    stack.push_async_callback(conn.close)
    await migrate(conn)
    await apply_text(conn, catalog_text(), "the benchmark's catalog")
    revision, items = await load_current(conn)
    catalog = Catalog.empty().changed(revision, items)
    today = datetime.now(UTC).date()
    await Partitions().ensure_ahead(conn, today)
    began_s = time.monotonic()
    await conn.execute(_FILL, _first_ms(today), time.time_ns() // 1_000_000 - _first_ms(today), size)
    await conn.execute("VACUUM (ANALYZE) clicks")
    await conn.execute("CHECKPOINT")
    print(f"{size:,} clicks put in within {time.monotonic() - began_s:.0f} s")
    return FilledTable(size, conn, server, settings, catalog, Backlog(settings, catalog, traffic))


def _first_ms(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY_S * 1000
