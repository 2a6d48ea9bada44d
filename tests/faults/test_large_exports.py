"""Exports of hundreds of thousands of rows: their memory does not grow with them; a reader that leaves ends them."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.postgres.connection import connect
from storage.postgres.partitions import Partitions, id_range
from tests.conftest import _TEMPLATE, Server, _fresh_database

pytestmark = pytest.mark.faults
ROWS = 300_000
DAY = date.today() - timedelta(days=1)  # noqa: DTZ011 - any day will do
# The interpreter with what commands need is 75 MB of that, Arrow 60 more.
MAX_RSS_KB = {"csv": 130_000, "ndjson": 130_000, "parquet": 260_000}
_MEASURE = (
    "import sys; from edge.cli import cli; cli(sys.argv[1:], standalone_mode=False);"
    # Not ru_maxrss: a child's begins with what its parent had.
    " print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)


@pytest.fixture(scope="module")
def full(embedded_server: Server) -> Iterator[str]:
    """A database with many clicks of one day."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        asyncio.run(_fill(url))
        yield url


async def _fill(url: str) -> None:
    conn = await connect(url)
    await Partitions().ensure(conn, [DAY])
    first = id_range(DAY)[0].int >> 80
    await conn.execute(
        "INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, source, aff_sub1, aff_sub2, utm_campaign, ip,"
        " country, city, user_agent, referrer, visitor, payout, currency, outcome, extras)"
        " SELECT (lpad(to_hex(ms), 12, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,"
        " to_timestamp(ms / 1000.0), 0, 1 + n % 50, 1 + n % 20, 's' || n % 100, md5(n::text), 'sub', 'c' || n % 30,"
        " '203.0.113.7', 'US', 'Springfield', repeat('Mozilla/5.0 ', 10), 'https://blog.example/' || n, gen_random_uuid(),"
        " 0.123456, 'USD', 'redirected', jsonb_build_object('n', n::text)"
        " FROM (SELECT n, $1::bigint + n * 200 AS ms FROM generate_series(1, $2::int) AS n) AS numbers",
        first,
        ROWS,
    )
    await conn.execute("ANALYZE clicks")
    await conn.close()


@pytest.mark.parametrize("form", sorted(MAX_RSS_KB))
def test_memory_is_bounded_however_many_rows(full: str, tmp_path: Path, form: str) -> None:
    """Half a gigabyte of rows through a process that stays small."""
    file = tmp_path / f"clicks.{form}"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, "export", "clicks", "--from", str(DAY), "--to", str(DAY), "--out", file, "--database", full],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    took_s = time.monotonic() - began
    peak_kb = int(done.stdout.split()[-1])
    sys.stdout.write(f"{form}: {ROWS / took_s:.0f} rows/s, {file.stat().st_size >> 20} MiB, peak {peak_kb >> 10} MiB\n")
    assert f"{ROWS} rows" in done.stderr
    assert count_rows(file, form) == ROWS
    assert peak_kb < MAX_RSS_KB[form]


def count_rows(file: Path, form: str) -> int:
    """What is in the file."""
    if form == "parquet":
        return int(pq.read_metadata(file).num_rows)
    with file.open("rb") as lines:
        return sum(1 for _ in lines) - (form == "csv")


def test_a_reader_that_leaves_ends_the_export_quietly(full: str) -> None:
    """As `head` does: no traceback, no complaint, and no query that goes on."""
    command = [sys.executable, "-m", "edge", "export", "clicks", "--from", str(DAY), "--database", full]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"click_id,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1
