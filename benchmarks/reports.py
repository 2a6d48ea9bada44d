"""How long reports take over a month of clicks: common dimensions over 30 days, sub ids and UTM over seven.

The rows are made inside an embedded server (`report_data.py`) and rolled up by the product's own job; the reports go
through `run_report`, as the API's do. `--kept DIR` keeps the data there for the next run.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.report import percentile, publish, surroundings
from benchmarks.report_data import make_clicks
from edge.admin.roll_up import RollUp
from edge.counters import Counters
from edge.logs import configure_logs
from storage.postgres.connection import Connection, connect
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate
from storage.postgres.reports.query import ReportQuery, parse_query
from storage.postgres.reports.report import explain_report, run_report
from storage.postgres.reports.viewer import ADMIN

SUMMARY = "time of a report over 20 million stored clicks: common dimensions over 30 days, sub ids and UTM over 7"
MONTH_MS, WEEK_MS = 150, 1500
MONTH, WEEK = 30, 7
OF_MONTH = (
    "date", "offer", "partner", "advertiser", "goal", "country", "device", "landing_page", "hour", "date,offer",
    "date,country", "country,device", "offer,device", "offer,goal", "date,partner", "partner,device", "offer,partner",
    "offer,country", "offer,landing_page", "partner,country",
)  # fmt: skip
OF_WEEK = (
    "source", "aff_sub1", "aff_sub2", "aff_sub3", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term",
    "date,utm_source", "aff_sub1?partner=2", "utm_campaign?offer=98",
)  # fmt: skip
"""Dimensions, and filters behind a question mark."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--clicks", type=int, default=20_000_000, help="to make (default: 20000000)")
    parser.add_argument("--rounds", type=int, default=7, help="of each report (default: 7)")
    parser.add_argument("--directory", default="/var/tmp", help="for the database: on a real disk")
    parser.add_argument("--kept", type=Path, help="use the data of this directory, or make and leave it there")
    parser.add_argument("--plans", action="store_true", help="print PostgreSQL's plan of each report")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and keep the result."""
    configure_logs("benchmark")
    facts = surroundings()
    directory = arguments.kept or Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=arguments.directory))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o711)  # as root the server runs as another user, who must get there
    try:
        result = uvloop.run(_measure(directory, arguments))
    finally:
        if not arguments.kept:
            shutil.rmtree(directory, ignore_errors=True)
    publish("reports", {**facts, **result})


async def _measure(directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    server = EmbeddedPostgres(directory)
    url = await server.start()
    conn = await connect(url, command_timeout_s=7200)
    try:
        await _prepare(url, conn, arguments.clicks)
        return {
            **await _settings(conn),
            "rows": await _sizes(conn),
            f"over {MONTH} days, at most {MONTH_MS} ms": await _time_all(conn, OF_MONTH, MONTH, arguments),
            f"over {WEEK} days, at most {WEEK_MS} ms": await _time_all(conn, OF_WEEK, WEEK, arguments),
        }
    finally:
        await conn.close()
        await server.stop()


async def _prepare(url: str, conn: Connection, clicks: int) -> None:
    """Rows, if there are none, and everything rolled up that is finished by now."""
    await migrate(conn)
    if not await conn.fetchval("SELECT EXISTS (SELECT FROM stats_hourly)"):
        await make_clicks(url, conn, clicks)
    began_s = time.monotonic()
    await RollUp(str, "UTC", Counters.private()).roll_up(conn, datetime.now(UTC))
    print(f"rolled up within {time.monotonic() - began_s:.0f} s", flush=True)
    await conn.execute("VACUUM (ANALYZE) stats_rollups, click_values, stats_hourly, clicks, conversions")
    await asyncio.sleep(1)


async def _settings(conn: Connection) -> dict[str, Any]:
    names = ("shared_buffers", "work_mem", "max_parallel_workers_per_gather", "jit", "effective_cache_size")
    return {
        "server": await conn.fetchval("SHOW server_version"),
        "server_settings": {name: await conn.fetchval(f"SHOW {name}") for name in names},
    }


async def _sizes(conn: Connection) -> dict[str, str]:
    rows = await conn.fetch(
        "SELECT coalesce(parent.relname, own.relname) AS name, sum(own.reltuples)::bigint AS rows,"
        " (sum(pg_total_relation_size(own.oid)) / 1e6)::int AS megabytes FROM pg_class AS own"
        " LEFT JOIN pg_inherits ON inhrelid = own.oid LEFT JOIN pg_class AS parent ON parent.oid = inhparent"
        " WHERE own.relkind = 'r' AND coalesce(parent.relname, own.relname) IN"
        " ('clicks', 'conversions', 'conversion_changes', 'stats_hourly', 'stats_rollups', 'click_values')"
        " GROUP BY 1 ORDER BY 1"
    )
    return {row["name"]: f"{row['rows']:,} rows, {row['megabytes']:,} MB" for row in rows}


async def _time_all(
    conn: Connection, asked: Sequence[str], days: int, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    found = {}
    for text in asked:
        query = _query(text, days)
        found[text] = await _time(conn, query, arguments.rounds)
        print(f"{text}: {found[text]['median_ms']} ms", flush=True)
        if arguments.plans:
            print("\n".join(await explain_report(conn, query, ADMIN)), flush=True)
    return found


def _query(text: str, days: int) -> ReportQuery:
    now = datetime.now(UTC)
    dimensions, _, filters = text.partition("?")
    asked = {"dimensions": dimensions, "from": str((now - timedelta(days=days - 1)).date()), "to": str(now.date())}
    asked |= dict([filters.split("=")]) if filters else {}
    return parse_query([*asked.items(), ("limit", "50")], ADMIN, now)


async def _time(conn: Connection, query: ReportQuery, rounds: int) -> dict[str, Any]:
    """Milliseconds of the whole report, a first run left out."""
    report = await run_report(conn, query, ADMIN, datetime.now(UTC))
    taken_ms = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        await run_report(conn, query, ADMIN, datetime.now(UTC))
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    return {
        "median_ms": round(statistics.median(taken_ms)),
        "p99_ms": round(percentile(taken_ms, 0.99)),
        "least_ms": round(min(taken_ms)),
        "rows": report.row_count,
        "plan": "; ".join(report.plan),
    }
