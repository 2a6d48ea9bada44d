"""A report over a month equals SQL written otherwise over the raw rows, whatever is asked."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.postgres.connection import connect
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import run_report
from storage.postgres.reports.viewer import ADMIN
from tests.conftest import Server, _fresh_database, _TEMPLATE
from tests.postgres.report_month import make_month
import asyncio, time, uuid


@pytest.fixture(scope="module")
def month(embedded_server: Server, short_directory: Path) -> Iterator[str]:
    for url in _fresh_database(embedded_server, _TEMPLATE):
        t=time.time()
        embedded_server.runner.run(make_month(short_directory / uuid.uuid4().hex[:8], url))
        print("made in", time.time()-t)
        yield url


async def test_smoke(month: str) -> None:
    conn = await connect(month)
    try:
        for params in (
            [("from", "2026-10-01"), ("to", "2026-10-31"), ("metrics", ",".join(METRICS))],
            [("from", "2026-10-01"), ("to", "2026-10-31"), ("dimensions", "offer"), ("metrics", ",".join(METRICS))],
            [("from", "2026-10-01"), ("to", "2026-10-31"), ("dimensions", "offer,aff_sub1"), ("limit","5"), ("compare","previous")],
            *[[("from", "2026-10-01"), ("to", "2026-10-31"), ("dimensions", "utm_source"), ("touch", touch), ("by", by)] for touch in ("first", "linear", "time_decay", "position") for by in ("conversion", "click")],
        ):
            t=time.time()
            report = await run_report(conn, parse_query(params, ADMIN, datetime.now(UTC)), ADMIN, datetime.now(UTC))
            print(params, time.time()-t)
            print(report.plan, report.notes, report.row_count, report.currencies, report.labels)
            for row in report.rows[:6]: print("  ", row.dimensions, row.metrics, row.change)
            print("  T", report.totals.metrics)
    finally:
        conn.terminate()
