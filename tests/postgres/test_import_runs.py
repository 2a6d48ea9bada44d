"""Files imported as command and API do it: vendors' forms, bad rows, broken runs, costs and contacts; figures recounted."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from edge.drain.import_run import Report, Source, run_import
from edge.drain.takers import Plan
from storage.postgres.import_runs import list_runs
from tests.postgres.drains import Bench, make_settings, now_ms
from tests.recount import differences

DAY_MS = 86_400_000


def when(ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


async def take_in(bench: Bench, path: Path, kind: str = "conversions", **plan: Any) -> Report:
    """Import it on a connection of its own, as everybody does."""
    conn = await bench.connect()
    source = Source(path, path.name, path.with_name(f"{path.name}.rejects.csv"))
    values: dict[str, Any] = {"kind": kind, "zone": ZoneInfo("UTC"), "actor": "test"}
    try:
        return await run_import(conn, make_settings(bench.data_dir, bench.url), source, Plan(**{**values, **plan}))
    finally:
        await conn.close()


def rejected(report: Report) -> list[dict[str, str]]:
    with open(report.rejects, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def test_a_file_goes_in_once_and_what_is_wrong_comes_back(embedded_bench: Bench, tmp_path: Path) -> None:
    """Each bad row with line and reason; corrected, the rejects go in themselves; again, all is known; figures agree."""
    bench, scribe = embedded_bench, embedded_bench.scribe()
    clicks = [scribe.click(ms=now_ms() - 3 * DAY_MS + n).hex() for n in range(3)]
    await bench.drain()
    at = when(now_ms() - DAY_MS)
    path = write(
        tmp_path / "sales.csv",
        f'Click ID,Amount,Date\n{clicks[0]},"1,234.50",{at}\n\n{clicks[1]},-5,{at}\n{clicks[1][:-1]}0,5,{at}\n'
        f"{clicks[2]},5,yesterday\n{clicks[2]},5,{when(now_ms() + DAY_MS)}\n{clicks[2]},5,{when(now_ms() - 9 * DAY_MS)}\n"
        f"{clicks[2]},5,{at},more\n,5,{at}\n",
    )
    report = await take_in(bench, path)
    assert report.counts == {"stored": 1, "rejected": 7}
    lines = rejected(report)
    said = [
        (4, "below zero"), (5, "unknown_click: "), (6, "cannot be read: say --date-format"), (7, "in the future"),
        (8, "before its click"), (9, "it has 4 values"), (10, "no click id"),
    ]  # fmt: skip
    for line, text in said:
        assert [text in one["reason"] for one in lines if one["line"] == str(line)] == [True], (line, lines)
    assert lines[0]["Amount"] == "-5"
    rows = [f"4,why,{clicks[1]},5,{at}", f"6,why,{clicks[2]},5,{at}"]
    mended = write(tmp_path / "mended.csv", "\n".join(["line,reason,Click ID,Amount,Date", *rows]))
    assert (await take_in(bench, mended)).counts == {"stored": 2}
    assert (await take_in(bench, path)).counts == {"known": 1, "rejected": 7}
    assert (await take_in(bench, mended)).counts == {"known": 2}
    assert await bench.value("SELECT sum(amount)::text FROM stats_hourly") == "1244.500000"
    assert await differences(bench.conn) == []
    runs = await list_runs(bench.conn, 10)
    assert [(run["state"], run["rows_stored"], run["rows_known"], run["rows_rejected"]) for run in runs] == [
        ("done", 0, 2, 0), ("done", 0, 1, 7), ("done", 2, 0, 0), ("done", 1, 0, 7),
    ]  # fmt: skip
