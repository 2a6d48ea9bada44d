"""`clickedge import` as a user types it, on a running node: another tracker's clicks become clicks of this node."""

import asyncio
import csv
import os
import pty
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge.tracking.click_id import ClickIds, worker_of
from tests.node import COMMAND, Node, eventually
from tests.postgres.drains import Unleased
from tests.recount import differences
from tests.wire.test_commands import run, until

HEADER = ["Click ID", "Date Time", "Offer ID", "Affiliate ID", "Source", "Sub ID 1", "IP", "Carrier"]


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node for all tests of this file."""
    node = Node(short_directory / f"imports-{uuid.uuid4().hex[:8]}")
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def ago(**span: float) -> str:
    return f"{datetime.now(UTC) - timedelta(**span):%Y-%m-%d %H:%M:%S}"


def write(path: Path, *rows: list[str], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(node: Node, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in asyncio.run(node.fetch(query, *arguments))]


def clicks(node: Node, path: Path, *options: str, vendor: str = "csv", code: int = 0) -> str:
    return run("import", "clicks", path, "--from", vendor, "--data-dir", node.data_dir, *options, code=code)


async def _differences(node: Node) -> list[str]:
    from storage.postgres.connection import connect

    conn = await connect(node.database_url)
    try:
        return await differences(conn)
    finally:
        await conn.close()


def test_a_file_goes_in_once_and_its_bad_rows_come_back(node: Node, tmp_path: Path) -> None:
    """Good rows are stored, bad ones listed with line and reason; the second run stores nothing; numbers agree."""
    good = [f"old-{uuid.uuid4().hex[:8]}", ago(days=2), "17", "2", "mail", "spring", "203.0.113.9", "ACME"]
    bad = {
        "catalog has no offer 99": ["b1", ago(days=1), "99", "2"],
        "catalog has no partner 77": ["b2", ago(days=1), "17", "77"],
        "older than EDGE_CLICK_RETENTION": ["b3", ago(days=401), "17", "2"],
        "in the future": ["b4", ago(days=-1), "17", "2"],
        "cannot be read": ["b5", "yesterday", "17", "2"],
        "no address": ["b6", ago(days=1), "17", "2", "", "", "nowhere"],
    }
    path = write(tmp_path / "clicks.csv", good, *bad.values())
    told = clicks(node, path, "--map", "Sub ID 1=aff_sub", code=1)
    assert "columns left out: Carrier" in told
    assert "1 clicks imported, 0 known already, 6 rejected" in told
    with (tmp_path / "clicks.csv.rejects.csv").open(newline="") as file:
        rejected = list(csv.reader(file))
    assert [row[0] for row in rejected[1:]] == [str(line) for line in range(3, 9)]
    assert [reason in row[1] for reason, row in zip(bad, rejected[1:], strict=True)] == [True] * 6
    before = rows(node, "TABLE stats_hourly")
    assert "0 clicks imported, 1 known already, 6 rejected" in clicks(node, path, code=1)
    assert rows(node, "TABLE stats_hourly") == before
    found = rows(node, "SELECT aff_sub1, source, host(ip), extras->>'imported_from' FROM external_ids"
                       " JOIN clicks USING (click_id) WHERE transaction_id = $1", good[0])  # fmt: skip
    assert found == [("spring", "mail", "203.0.113.9", "csv")]
    assert asyncio.run(_differences(node)) == []


def test_a_quotation_mark_that_is_not_closed_costs_one_click_only(node: Node, tmp_path: Path) -> None:
    """What follows is no part of that row: it is imported."""
    row = f"quoted-%d,{ago(days=2)},17,2,%s"
    path = tmp_path / "clicks.csv"
    lines = [row % (number, '"mail' if number == 1 else "mail") for number in range(40)]
    path.write_text("\n".join(["transaction_id,datetime,offer_id,aff_id,source", *lines]) + "\n")
    assert "39 clicks imported, 0 known already, 1 rejected" in clicks(node, path, code=1)
    with (tmp_path / "clicks.csv.rejects.csv").open(newline="") as file:
        [rejected] = list(csv.reader(file))[1:]
    assert (rejected[0], "quotation marks" in rejected[1], rejected[2]) == ("3", True, f"{lines[1]}\n")


def test_minted_ids_are_this_nodes_and_their_postbacks_count(node: Node, tmp_path: Path) -> None:
    """Signed with the node's generated secret: a postback with the minted id finds the imported click."""
    old = f"old-{uuid.uuid4().hex[:8]}"
    clicks(node, write(tmp_path / "clicks.csv", [old, ago(hours=3), "17", "2"]))
    [(found,)] = rows(node, "SELECT click_id FROM external_ids WHERE transaction_id = $1", old)
    secret = (node.data_dir / "secret").read_text().strip()
    ids = ClickIds([secret], 0, 1, Unleased())
    assert ids.parse(found.hex) == found.bytes
    assert worker_of(found.bytes) == 63
    told = run("explain", "--data-dir", node.data_dir, found.hex)
    assert "17" in told
    subprocess.run(["curl", "-sf", f"{node.origin}/aff_lsr?transaction_id={found.hex}&amount=5"], check=True, timeout=20)
    deadline = time.monotonic() + 30
    while not (decided := rows(node, "SELECT status, aff_id FROM conversions WHERE click_id = $1", found)):
        assert time.monotonic() < deadline
    assert decided == [("approved", 2)]


def test_a_dry_run_stores_nothing(node: Node, tmp_path: Path) -> None:
    """It reads everything and tells what would become of it."""
    path = write(tmp_path / "clicks.csv", ["dry-1", ago(days=1), "17", "2"], ["dry-2", "never", "17", "2"])
    told = clicks(node, path, "--dry-run", code=1)
    assert "1 clicks would be imported, 0 known already, 1 rejected" in told
    assert rows(node, "SELECT count(*) FROM external_ids WHERE transaction_id LIKE 'dry-%'") == [(0,)]


def test_times_are_in_the_zone_that_the_user_says(node: Node, tmp_path: Path) -> None:
    """And in the format, where it is neither ISO nor Unix time."""
    header = ["transaction_id", "date", "offer_id", "aff_id"]
    local = (datetime.now(ZoneInfo("Asia/Kolkata")) - timedelta(days=20)).replace(second=0, microsecond=0)
    path = write(tmp_path / "clicks.csv", ["zoned", f"{local:%m/%d/%Y %H:%M}", "17", "2"], header=header)
    clicks(node, path, "--timezone", "Asia/Kolkata", "--time-format", "%m/%d/%Y %H:%M", vendor="tune")
    found = rows(node, "SELECT clicked_at FROM clicks JOIN external_ids USING (click_id) WHERE transaction_id = 'zoned'")
    assert found == [(local.astimezone(UTC),)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--map", "Click ID"], "write COLUMN=FIELD"),
        (["--map", "No Such=source"], "the file has no column 'No Such'"),
        (["--timezone", "Mars/Base"], "no IANA time zone"),
    ],
)
def test_a_wrong_option_is_one_clear_line(node: Node, tmp_path: Path, options: list[str], told: str) -> None:
    """Nothing is read or stored."""
    assert told in clicks(node, write(tmp_path / "clicks.csv", ["x", ago(days=1), "17", "2"]), *options, code=2)


def test_without_a_running_node_the_command_says_so(tmp_path: Path) -> None:
    """And makes no secret anywhere."""
    path = write(tmp_path / "clicks.csv")
    told = run("import", "clicks", path, "--from", "csv", "--data-dir", tmp_path / "nowhere", code=2)
    assert told.startswith("clickedge: no running `clickedge serve`")
    assert not (tmp_path / "nowhere").exists()


def test_another_machine_cannot_mint_this_nodes_ids(node: Node, tmp_path: Path) -> None:
    """A data dir that does not hold the node's lease, or a foreign secret, is refused before anything is stored."""
    path = write(tmp_path / "clicks.csv", ["x", ago(days=1), "17", "2"])
    environ = {**os.environ, "EDGE_SECRET": "another-secret-of-16", "EDGE_NODE_ID": "0"}
    other = tmp_path / "other"
    other.mkdir()
    done = subprocess.run(
        [COMMAND, "import", "clicks", path, "--from", "csv", "--data-dir", other, "--database", node.database_url],
        env=environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"node id 0 is leased to another data dir" in done.stderr


def test_an_import_that_was_killed_is_finished_by_the_next(node: Node, tmp_path: Path) -> None:
    """kill -9 in the middle: what was stored stays, the rest comes with the second run, each click once."""
    count = "SELECT count(*) FROM external_ids JOIN clicks USING (click_id) WHERE transaction_id LIKE 'killed-%'"
    total = 30_000
    path = write(tmp_path / "clicks.csv", *([f"killed-{n}", ago(days=1, seconds=n), "17", "2"] for n in range(total)))
    process = subprocess.Popen([COMMAND, "import", "clicks", path, "--from", "csv", "--data-dir", node.data_dir])
    until(node, lambda: rows(node, count)[0][0] > 0, 60)
    process.kill()
    process.wait()
    found = re.search(r"(\d+) clicks imported, (\d+) known already, 0 rejected", clicks(node, path))
    assert found
    stored, known = map(int, found.groups())
    assert stored > 0
    assert known > 0
    assert stored + known == total
    assert rows(node, count) == [(total,)]
    assert asyncio.run(_differences(node)) == []


def test_on_a_terminal_there_is_a_progress_bar(node: Node, tmp_path: Path) -> None:
    """On stderr; what stdout says stays the same."""
    path = write(tmp_path / "clicks.csv", *([f"bar-{n}", ago(days=1), "17", "2"] for n in range(4100)))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "import", "clicks", path, "--from", "csv", "--data-dir", node.data_dir],
        stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:
        pass  # how Linux says that nobody holds the other end any more
    os.close(master)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"4100 clicks imported" in stdout
    assert b"imported, 0 rejected" in shown


FIXTURES = Path(__file__).parents[1] / "fixtures" / "imports"
EXPORTS = {
    "tune": ["tune_offers.json", "tune_affiliates.json", "tune_advertisers.json", "tune_terms.json"],
    "everflow": ["everflow_offers.json", "everflow_partners.json", "everflow_custom.json"],
}


@pytest.mark.parametrize("vendor", ["tune", "everflow"])
def test_an_exported_catalog_applies_as_it_is(node: Node, tmp_path: Path, vendor: str) -> None:
    """The real command's file, through `apply --dry-run`; only its owner may read it; it is never overwritten."""
    files, out = [FIXTURES / name for name in EXPORTS[vendor]], tmp_path / "catalog.toml"
    told = run("import", "catalog", *files, "--from", vendor, "-o", out)
    assert re.search(r"\d advertisers, \d partners, \d offers; \d left out, \d+ comments to read", told)
    assert out.stat().st_mode & 0o777 == 0o600
    shown = run("apply", "--dry-run", "--data-dir", node.data_dir, out)
    assert "dry run" in shown
    before = out.read_text()
    assert "is there already" in run("import", "catalog", *files, "--from", vendor, "-o", out, code=2)
    assert out.read_text() == before
    printed = run("import", "catalog", *files, "--from", vendor)
    assert printed.startswith(before)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.json", "--from", "tune"], "cannot read missing.json"),
        ([FIXTURES / "tune_error.json", "--from", "tune"], "answered with an error: Invalid token"),
        ([FIXTURES / "tune_offers.json", "--from", "everflow"], "holds no offers"),
        ([FIXTURES / "tune_offers.json", "--from", "tune", "--currency", "dollars"], "ISO 4217"),
        ([FIXTURES / "tune_offers.json", "--from", "tune", "-o", "/nowhere/catalog.toml"], "cannot write /nowhere"),
    ],
)
def test_an_export_that_cannot_be_read_is_one_clear_line(arguments: list[str | Path], told: str) -> None:
    """Exit code 2, no traceback."""
    shown = run("import", "catalog", *arguments, code=2)
    assert told in shown
    assert shown.count("\n") == 1


async def test_a_whole_network_moves_in(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Export, import, apply, import the open clicks: on an empty node, a postback then finds the click that came along."""
    node = await make_node(catalog=None).start()
    out = tmp_path / "catalog.toml"
    run("import", "catalog", *(FIXTURES / name for name in EXPORTS["tune"]), "--from", "tune", "-o", out)
    run("apply", "--data-dir", node.data_dir, out)
    header = ["Stat.ad_id", "Stat.datetime", "Stat.offer_id", "Stat.affiliate_id", "Stat.affiliate_info1"]
    path = write(tmp_path / "clicks.csv", ["102f3a7b9c", ago(days=3), "17", "2", "spring"], header=header)
    assert "1 clicks imported" in clicks(node, path, vendor="tune")
    [row] = await node.fetch("SELECT click_id FROM external_ids WHERE transaction_id = '102f3a7b9c'")
    address = f"{node.origin}/aff_lsr?transaction_id={row['click_id'].hex}&security_token=a1b2c3d4"
    done = await asyncio.create_subprocess_exec("curl", "-sf", address)
    assert await done.wait() == 0

    async def is_decided() -> bool:
        return bool(await node.fetch("SELECT FROM conversions"))

    await eventually(is_decided, 30, node.describe)
    [decided] = await node.fetch("SELECT status, reason, aff_id, payout::text, revenue::text FROM conversions")
    # Its addresses came along too, and this one is not among them.
    assert tuple(decided) == ("rejected", "ip_not_allowed", 2, "0.000000", "0.000000")


def test_conversions_are_shown_counted_and_imported_once(node: Node, tmp_path: Path) -> None:
    """What the columns are taken for, a dry run, the import, a second one; rejects and exit codes; figures agree."""
    at = datetime.now(UTC) - timedelta(minutes=5)
    old = f"old-{uuid.uuid4().hex[:8]}"
    clicks(node, write(tmp_path / "clicks.csv", [old, ago(days=1), "17", "2"]))
    path = tmp_path / "report.csv"
    path.write_text(
        f"Click ID;Sale Amount;Datum;Carrier\n{old};1.234,50;{at:%Y-%m-%d %H:%M:%S};ACME\nnobody;5;{at:%Y-%m-%d};\n"
    )
    query = "SELECT amount::text, via FROM conversions WHERE transaction_id = $1"
    command = ("import", "conversions", path, "--map", "datetime=Datum", "--data-dir", node.data_dir)
    told = run(*command, "--dry-run", code=1)
    assert "amount          <- Sale Amount   such as 1.234,50" in told
    assert "columns left out: Carrier" in told
    assert "1 conversions would be imported, 0 known already, 1 rejected" in told
    assert rows(node, query, old) == []
    told = run(*command, "--rejects", tmp_path / "bad.csv", code=1)
    assert "line 3: rejected: unknown_click: the id is not ours, and no click carried it" in told
    assert re.search(
        r"^1 conversions imported, 0 known already, 1 rejected\n.*bad.csv\nimport \d+\n", told, re.MULTILINE
    )
    refused = (tmp_path / "bad.csv").read_text()
    assert refused.startswith('line,reason,Click ID,Sale Amount,Datum,Carrier\n3,"unknown_click: ')
    assert "0 conversions imported, 1 known already, 1 rejected" in run(*command, code=1)
    assert rows(node, query, old) == [("1234.500000", "import")]
    assert asyncio.run(_differences(node)) == []


def test_a_file_of_a_table_that_cannot_be_read_is_one_line(node: Node, tmp_path: Path) -> None:
    """Missing, a workbook, no header, an option that names nothing: code 2, nothing recorded."""
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "bare.csv").write_text("0192f0c1,12.50,2026-11-01\n")
    (tmp_path / "good.csv").write_text("click_id,amount,date\n")
    before = rows(node, "SELECT count(*) FROM imports")
    for name, options, said in (
        ("missing.csv", (), "cannot read"),
        ("book.csv", (), "an Excel workbook or a zip archive"),
        ("bare.csv", (), "is the header missing"),
        ("good.csv", ("--map", "amount=Preis"), "no column 'Preis'"),
        ("good.csv", ("--map", "amount"), "write FIELD="),
        ("good.csv", ("--timezone", "Mars/Base"), "no IANA time zone"),
        ("good.csv", ("--rejects", tmp_path / "good.csv"), "is the file to be imported"),
    ):
        told = run("import", "conversions", tmp_path / name, *options, "--data-dir", node.data_dir, code=2)
        assert said in told
        assert "Traceback" not in told
    assert [(one[0],) for one in before] <= rows(node, "SELECT count(*) FROM imports")
    assert rows(node, "SELECT count(*) FROM conversions WHERE via = 'import' AND amount = 12.5") == [(0,)]
