"""How fast a backlog of clicks gets into Postgres, beside a plain COPY of the very same rows.

Rounds alternate between the two, on the same server, so that a noisy machine slows both. A round's clicks are made by
the real handlers and written by the real journal writer; then the drain process's own `Drain` stores them. The COPY side
gets the rows ready-made and pays for COPY alone: once in one transaction, once in transactions of the drain's size.
"""

import argparse
import gc
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.report import percentile, publish, surroundings
from benchmarks.traffic import ADDRESSES, USER_AGENTS, Traffic, catalog_text
from edge.admin.catalog_apply import apply_text
from edge.counters import BLOCK_BYTES, Counters, cell
from edge.drain.process import Drain
from edge.drain.rows import RowMaker
from edge.enrich import Enricher
from edge.logs import configure_logs
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds
from edge.tracking.dialects import dispatch
from edge.tracking.headers import Headers
from edge.tracking.parameters import parse_query
from edge.tracking.request import Request
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.worker import MAX_SEGMENT_BYTES
from storage.journal.events import Click, decode
from storage.journal.reader import JournalReader
from storage.journal.writer import JournalWriter
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, connect
from storage.postgres.copy import TouchRow
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate
from storage.postgres.partitions import Partitions, id_range, partition_name
from storage.postgres.stats import Deltas

SUMMARY = "rows/s from a backlog through the drain, and the ratio to a plain COPY of the same rows"
DEFECT_BELOW = 0.25

CLICKS_PER_MS = 10
WRITTEN_TOGETHER = 64
SYNC_BYTES = 4 * 2**20

_CLICKS_STORED = cell("edge_drain_rows_total", "clicks")
_SECRET = "a secret of the benchmark's own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--clicks", type=int, default=200_000, help="in all rounds together (default: 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="of drain and COPY in turn (default: 5)")
    parser.add_argument("--directory", default="/var/tmp", help="for the database and journals: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    configure_logs("benchmark")
    facts = surroundings()
    # Not mkdtemp's 0700: as root the server runs as another user, who must get there.
    directory = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=arguments.directory))
    directory.chmod(0o711)
    try:
        result = uvloop.run(_measure(directory, arguments.clicks // arguments.rounds, arguments.rounds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    publish("drain", {**facts, **result})


class _Forever:
    """A lease on every id: nobody else mints any here."""

    start_ms = 0
    through_ms = 2**47

    def cover(self, ms: int) -> None:
        """Never needed."""


class Backlog:
    """Journals of clicks that wait for the drain."""

    def __init__(self, settings: Settings, catalog: Catalog, traffic: Traffic) -> None:
        self._root = settings.data_path / "journal"
        self._traffic = traffic
        ids = ClickIds(settings.secrets, settings.node_id, 0, _Forever())
        self._state = EdgeState(catalog, ids, Sessions(1000), Counters.private())
        self._now_ms = time.time_ns() // 1_000_000

    def write(self, count: int) -> JournalWriter:
        """A journal with `count` more clicks; its writer is gone."""
        writer = JournalWriter.create(
            self._root, node_id=0, worker_id=0, now_ms=self._now_ms, max_segment_bytes=MAX_SEGMENT_BYTES
        )
        events = self._events(count)
        while payloads := list(islice(events, WRITTEN_TOGETHER)):
            if writer.write(payloads) != len(payloads):
                raise RuntimeError(f"the journal took only a part: {writer.last_error}")
            if writer.appended_bytes - writer.synced_bytes > SYNC_BYTES:
                writer.sync()
        writer.close()
        return writer

    def _events(self, count: int) -> Iterator[bytes]:
        state = self._state
        for number, (query, agent, address) in enumerate(self._traffic.queries(count)):
            self._now_ms += number % CLICKS_PER_MS == 0
            headers = Headers(agent, "https://blog.example.com/deals/7", "en-US,en;q=0.9")
            request = Request("GET", "/aff_c", parse_query(query), headers, address, True, self._now_ms)
            yield dispatch(state, request).event


class ObservedCounters(Counters):
    """Keeps every batch's duration and end as they are, where the product's histogram has only buckets."""

    def __init__(self) -> None:
        super().__init__(bytearray(BLOCK_BYTES))
        self.batches_us: list[int] = []
        self.stop_at = 0
        self.stopped_s = 0.0

    def observe(self, name_cell: int, buckets_us: tuple[int, ...], duration_us: int) -> None:
        """As the drain calls it, after each commit; the last batch ends the drain."""
        super().observe(name_cell, buckets_us, duration_us)
        self.batches_us.append(duration_us)
        if self.cells[_CLICKS_STORED] == self.stop_at:
            self.stopped_s = time.perf_counter()
            signal.raise_signal(signal.SIGTERM)


@dataclass
class Bench:
    """One server, one drain process's worth of objects, and the tables to copy into."""

    conn: Connection
    settings: Settings
    backlog: Backlog
    catalog: Catalog
    counters: ObservedCounters = field(default_factory=ObservedCounters)
    cpu_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("drain", "copied", "copied_in_batches"), 0.0)
    )
    """Of this process, the server's left out: what a busy machine distorts least."""

    def __post_init__(self) -> None:
        self._drain = Drain(ChildOrders("drain", 0, self.settings, -1, []), self.counters)
        self._enricher = Enricher(Path(self.settings.geoip_db), time.monotonic)

    async def drain(self, count: int) -> float:
        """Seconds from the drain's start, connecting included, to the last commit."""
        self.counters.stop_at = self.counters.cells[_CLICKS_STORED] + count
        started_s, began_cpu_s = time.perf_counter(), time.process_time()
        # The same object again after the first round, as in a process that lived through an outage of Postgres.
        self._drain._stop.clear()  # noqa: SLF001 - the one thing that `run` does not begin anew
        await self._drain.run()
        self.cpu_s["drain"] += time.process_time() - began_cpu_s
        return self.counters.stopped_s - started_s

    def rows_of(self, journal: JournalWriter) -> Iterator[list[TouchRow]]:
        """The rows that the drain makes of the journal, in its batches."""
        reader = JournalReader(journal.directory)
        rows = RowMaker(self._enricher, self.settings)
        while records := reader.read(self.settings.batch_rows, 2**30).records:
            made, deltas = [], Deltas()
            for record in records:
                event = decode(record.payload)
                if not isinstance(event, Click):
                    raise TypeError("the backlog holds clicks only")
                made.append(rows.touch_row(event, event.session, self.catalog, deltas))
            yield made
        reader.close()

    async def copy(self, table: str, batches: Sequence[Sequence[TouchRow]]) -> float:
        """Seconds for one COPY and one commit each."""
        started_s, began_cpu_s = time.perf_counter(), time.process_time()
        for batch in batches:
            await self.conn.copy_records_to_table(table, records=batch, columns=TouchRow._fields)
        self.cpu_s[table] += time.process_time() - began_cpu_s
        return time.perf_counter() - started_s

    async def check(self, clicks: int) -> int:
        """How many roll-up rows there are; RuntimeError unless each click is stored and counted once."""
        for query in ("SELECT count(*) FROM clicks", "SELECT sum(gross_clicks) FROM stats_hourly"):
            if (found := await self.conn.fetchval(query)) != clicks:
                raise RuntimeError(f"{query}: {found}, not {clicks}")
        rows: int = await self.conn.fetchval("SELECT count(*) FROM stats_hourly")
        return rows


async def _measure(directory: Path, count: int, rounds: int) -> dict[str, Any]:
    geoip = directory / "places.mmdb"
    traffic = Traffic()
    traffic.write_places(geoip)
    settings = Settings(data_dir=str(directory), secrets=(_SECRET,), geoip_db=str(geoip))
    postgres = EmbeddedPostgres(directory)
    try:
        conn = await connect(await postgres.start())
        try:
            await migrate(conn)
            await apply_text(conn, catalog_text(), "the benchmark's catalog")
            revision, items = await load_current(conn)
            catalog = Catalog.empty().changed(revision, items)
            await Partitions().ensure_ahead(conn, datetime.now(UTC).date())
            bench = Bench(conn, settings, Backlog(settings, catalog, traffic), catalog)
            gc.collect()
            gc.freeze()  # as the drain's process does
            return await _run_rounds(bench, count, rounds)
        finally:
            await conn.close()
    finally:
        await postgres.stop()


async def _run_rounds(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"drain": [], "copy": [], "copy_in_batches": []}
    for table in ("copied", "copied_in_batches"):
        await _create_copy_table(bench.conn, table)
    for number in range(rounds):
        journal = bench.backlog.write(count)
        gc.collect()
        rates["drain"].append(count / await bench.drain(count))
        batches = list(bench.rows_of(journal))
        gc.collect()
        turns = [
            ("copy", "copied", [[row for batch in batches for row in batch]]),
            ("copy_in_batches", "copied_in_batches", batches),
        ]
        for name, table, copied in turns if number % 2 else reversed(turns):
            rates[name].append(count / await bench.copy(table, copied))
        del turns, batches, copied
        print(f"round {number + 1}: " + ", ".join(f"{name} {rate[-1]:,.0f}/s" for name, rate in rates.items()))
    return await _summarise(bench, rates, count * rounds)


async def _summarise(bench: Bench, rates: dict[str, list[float]], clicks: int) -> dict[str, Any]:
    ratios = [ours / plain for ours, plain in zip(rates["drain"], rates["copy"], strict=True)]
    batch_ratios = [ours / plain for ours, plain in zip(rates["drain"], rates["copy_in_batches"], strict=True)]
    batches_ms = [us / 1000 for us in bench.counters.batches_us]
    names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_compression")
    ratio = statistics.median(ratios)
    return {
        "server": await bench.conn.fetchval("SHOW server_version"),
        "server_settings": {name: await bench.conn.fetchval(f"SHOW {name}") for name in names},
        "clicks": clicks,
        "rounds": len(ratios),
        "batch_rows": bench.settings.batch_rows,
        "user_agents": USER_AGENTS,
        "addresses": ADDRESSES,
        "rollup_rows": await bench.check(clicks),
        "drain_rows_per_s": round(statistics.median(rates["drain"])),
        "copy_rows_per_s": round(statistics.median(rates["copy"])),
        "copy_in_batches_rows_per_s": round(statistics.median(rates["copy_in_batches"])),
        "drain_client_cpu_us_per_row": round(bench.cpu_s["drain"] / clicks * 1e6, 1),
        "copy_client_cpu_us_per_row": round(bench.cpu_s["copied"] / clicks * 1e6, 1),
        "batch_p50_ms": round(percentile(batches_ms, 0.5), 1),
        "batch_p99_ms": round(percentile(batches_ms, 0.99), 1),
        "ratio_to_copy": round(ratio, 3),
        "ratio_to_copy_by_round": [round(one, 3) for one in ratios],
        "ratio_to_copy_in_batches": round(statistics.median(batch_ratios), 3),
        "verdict": f"{'defect' if ratio < DEFECT_BELOW else 'fine'}: below {DEFECT_BELOW} is a defect",
    }


async def _create_copy_table(conn: Connection, name: str) -> None:
    """A table like `clicks`, partition, key and checks included."""
    await conn.execute(f"CREATE TABLE {name} (LIKE clicks INCLUDING ALL) PARTITION BY RANGE (click_id)")
    today = datetime.now(UTC).date()
    # The clicks begin now; those after midnight have tomorrow's partition.
    for day in (today, today + timedelta(days=1)):
        part = partition_name(name, day)
        low, high = id_range(day)
        await conn.execute(
            f"CREATE TABLE {part} (LIKE {partition_name('clicks', day)} INCLUDING ALL);"
            f" ALTER TABLE {name} ATTACH PARTITION {part} FOR VALUES FROM ('{low}') TO ('{high}')"
        )
