"""What no other measurement has: for how much of a batch the others wait (the lock of unique visits, the rows of
stats_hourly), and what it costs a drain to learn of another one's visits. Ratios and CPU, which a busy machine distorts least."""

import random
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.drain import Backlog, ObservedCounters
from benchmarks.traffic import Traffic, catalog_text
from edge.admin.catalog_apply import apply_text
from edge.counters import Counters, cell
from edge.drain import changing
from edge.drain.process import Drain
from edge.drain.unique_sharing import SharedUniques, _decode, _encode
from edge.logs import configure_logs
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, connect
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate
from storage.postgres.partitions import Partitions
from storage.postgres.visits import Visit

CLICKS = 30_000
ROUNDS = 3
VISITS_A_BATCH = 5000
_CLICKS_STORED = cell("edge_drain_rows_total", "clicks")


def measure(directory: Path) -> dict[str, Any]:
    """Both, as results/capacity.json keeps them."""
    configure_logs("benchmark")
    own = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=directory))
    own.chmod(0o711)  # as root the server runs as another user, who must get there
    try:
        locked, rollups = uvloop.run(_locked_shares(own))
    finally:
        shutil.rmtree(own, ignore_errors=True)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return {
        "rollup_share": {"value": round(rollups, 3), "measured": True, "source": "the same run: from the first roll-up row to the commit's end"},
        "locked_share": {"value": round(locked, 3), "measured": True, "source": f"capacity --measure, {day}: {ROUNDS * CLICKS:,} clicks, no conversions, one of two drains"},
        "visit_us_per_click": {"value": round(visit_us(), 2), "measured": True, "source": f"capacity --measure, {day}: decoding and noting batches of {VISITS_A_BATCH:,} visits, CPU"},
    }  # fmt: skip


def visit_us(batches: int = 40) -> float:
    """CPU microseconds of a drain for each click that another drain stored."""
    uniques = SharedUniques(Settings(data_dir="", secrets=("a secret of the benchmark's own",), drains=2), Counters.private(), 0)
    made = [_encode(_visits(random.Random(number), number)) for number in range(batches)]
    began_s = time.process_time()
    for visits in made:
        uniques._take(_decode(visits))  # noqa: SLF001 - what the drain itself does between its batches
    return (time.process_time() - began_s) / batches / VISITS_A_BATCH * 1e6


def _visits(chance: random.Random, number: int) -> list[Visit]:
    at_ms = time.time_ns() // 1_000_000 + number
    return [
        (chance.randrange(1, 300), chance.randrange(1, 1000), chance.randbytes(16), at_ms.to_bytes(6, "big") + chance.randbytes(10))
        for _ in range(VISITS_A_BATCH)
    ]  # fmt: skip


async def _locked_shares(directory: Path) -> tuple[float, float]:
    """Of the drain's time for its batches: from the agreement to the commit's end, from the roll-ups to the commit's end."""
    traffic = Traffic()
    traffic.write_places(directory / "places.mmdb")
    settings = Settings(
        data_dir=str(directory), secrets=("a secret of the benchmark's own",), geoip_db=str(directory / "places.mmdb")
    )
    postgres = EmbeddedPostgres(directory)
    try:
        conn = await connect(await postgres.start())
        try:
            return await _measure_locked(conn, settings, traffic)
        finally:
            await conn.close()
    finally:
        await postgres.stop()


async def _measure_locked(conn: Connection, settings: Settings, traffic: Traffic) -> tuple[float, float]:
    await migrate(conn)
    await apply_text(conn, catalog_text(), "the benchmark's catalog")
    revision, items = await load_current(conn)
    await Partitions().ensure_ahead(conn, datetime.now(UTC).date())
    backlog = Backlog(settings, Catalog.empty().changed(revision, items), traffic)
    counters = _Timed()
    drain = Drain(ChildOrders("drain", 0, msgspec.structs.replace(settings, drains=2), -1, []), counters)
    counters.watch(drain)
    upsert = changing.upsert
    changing.upsert = counters.timed(upsert)  # type: ignore[assignment]
    for _ in range(ROUNDS):
        backlog.write(CLICKS)
        counters.stop_at = counters.cells[_CLICKS_STORED] + CLICKS
        drain._stop.clear()  # noqa: SLF001 - as in benchmarks/drain.py
        await drain.run()
    changing.upsert = upsert
    seconds = sum(counters.batches_us) / 1e6
    return counters.locked_s / seconds, counters.rollups_s / seconds


class _Timed(ObservedCounters):
    """Knows when each batch had agreed and began its roll-ups, and that its commit's end is when its duration is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.locked_s = self.rollups_s = self._agreed_s = self._rolled_s = 0.0

    def watch(self, drain: Drain) -> None:
        """Be told by the drain's own agreement."""
        uniques: Any = drain._uniques  # noqa: SLF001 - no product code knows of this measurement
        agree = uniques.agree

        async def timed(conn: Connection) -> None:
            await agree(conn)
            self._agreed_s = time.perf_counter()

        uniques.agree = timed

    def timed(self, upsert: Any) -> Any:
        """`upsert` that tells when it began."""

        async def told(*arguments: Any) -> None:
            self._rolled_s = time.perf_counter()
            await upsert(*arguments)

        return told

    def observe(self, name_cell: int, buckets_us: tuple[int, ...], duration_us: int) -> None:
        """As the drain calls it after each commit."""
        now_s = time.perf_counter()
        if self._agreed_s and self._rolled_s:
            self.locked_s += now_s - self._agreed_s
            self.rollups_s += now_s - self._rolled_s
        self._agreed_s = self._rolled_s = 0.0
        super().observe(name_cell, buckets_us, duration_us)
