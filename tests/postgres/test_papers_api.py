"""Statements and exports through the API and the commands: each key its own, in every form, and cut when they cannot be finished."""

import asyncio
import csv
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientPayloadError

from edge.admin.api import exports
from edge.cli import main
from edge.exports.asking import Shape
from edge.exports.running import Write, export_table
from storage.postgres.api_keys import hash_token
from storage.postgres.connection import Connection, connect
from storage.postgres.exports.selecting import Selection
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.node import COMMAND
from tests.postgres.api import Client, add_key, bearer, open_api
from tests.postgres.drains import CATALOG, open_bench
from tests.postgres.tenants import month

NOW = datetime.now(UTC)
DAYS = f"from={NOW - timedelta(days=1):%Y-%m-%d}&to={NOW + timedelta(days=1):%Y-%m-%d}"


@pytest.fixture(scope="module")
def filled(embedded_server: Server, short_directory: Path) -> Iterator[str]:
    """A database with conversions of two partners, and a key of each scope."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        asyncio.run(_fill(short_directory / "papers", url))
        yield url


async def _fill(data_dir: Path, url: str) -> None:
    async with open_bench(data_dir, url, CATALOG) as bench:
        scribe = bench.scribe()
        for number in range(6):
            scribe.convert(scribe.click(aff_id=2 + number % 2), amount="10.005")
        await bench.drain()
    await add_key(url, "root")
    await add_key(url, "reader", "reports")
    await add_key(url, "partner", "partner", aff_id=2)
    await add_key(url, "advertiser", "advertiser", advertiser_id=1)
    await add_key(url, "other", "advertiser", advertiser_id=2)


@pytest.fixture
async def client(filled: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API on it."""
    async with open_api(filled, data_dir) as opened:
        yield opened


async def ask(client: Client, path: str, token: str = "root") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    answer = await client.get(f"/api/v1{path}", headers=bearer(token))
    return answer.status, answer.content_type, await answer.read()


async def test_a_months_statements_are_listed_page_by_page(client: Client) -> None:
    """Partners, then advertisers; the cursor of each page leads to the next."""
    found, cursor = [], ""
    while True:
        page = json.loads((await ask(client, f"/statements?month={month()}&limit=1&cursor={cursor}", "reader"))[2])
        found += page["data"]
        if not (cursor := page["next_cursor"] or ""):
            break
    assert [(one["party"], one["id"], one["currency"], one["total"]) for one in found] == [
        ("partner", 2, "USD", 15.00), ("partner", 3, "USD", 18.00), ("advertiser", 1, "USD", 45.00)
    ]  # fmt: skip
    assert not found[0]["is_final"]


async def test_a_statement_comes_as_json_csv_and_a_page(client: Client) -> None:
    """The same figures; the page lets nothing in but its own style."""
    path = f"/statements/partner/2/{month()}"
    statement = json.loads((await ask(client, path))[2], parse_float=Decimal)
    assert statement["parts"][0]["total"] == Decimal("15.00")
    assert statement["parts"][0]["lines"][0]["conversions"] == 3
    status, media, body = await ask(client, f"{path}?format=csv")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert (status, media, rows[-1]["kind"], rows[-1]["payout"]) == (200, "text/csv", "total", "15.00")
    answer = await client.get(f"/api/v1{path}?format=html", headers=bearer("root"))
    assert answer.content_type == "text/html"
    assert "default-src 'none'; style-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert "Payout due: 15.00 USD" in await answer.text()


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("partner", "/statements/partner/2/{MONTH}", 200),
        ("partner", "/statements/partner/3/{MONTH}", 404),
        ("partner", "/statements/advertiser/1/{MONTH}", 404),
        ("partner", "/statements?month={MONTH}&partner=3", 404),
        ("advertiser", "/statements/advertiser/1/{MONTH}", 200),
        ("advertiser", "/statements/partner/2/{MONTH}", 404),
        ("other", "/statements/advertiser/1/{MONTH}", 404),
        ("root", "/statements/partner/99/{MONTH}", 404),
        ("root", "/statements/partner/2/2099-01", 404),
        ("root", "/statements/partner/2/2026-13", 422),
        ("root", "/statements?month=soon", 422),
        ("root", "/statements?month={MONTH}&cursor=!!!", 422),
        ("partner", "/exports/costs?{DAYS}", 403),
        ("root", "/exports/nothing", 404),
        ("partner", "/exports/clicks?{DAYS}&partner=3", 404),
        ("root", "/exports/clicks", 422),
        ("root", "/exports/clicks?{DAYS}&format=xls", 422),
        ("partner", "/exports/conversions?{DAYS}&columns=revenue", 422),
        ("partner", "/exports/reports?{DAYS}&metrics=revenue", 422),
    ],
)
async def test_each_key_gets_its_own_and_every_refusal_is_a_problem(
    client: Client, token: str, path: str, status: int
) -> None:
    """Others' statements are not there; wrong parameters are named."""
    answered, media, _ = await ask(client, path.format(MONTH=month(), DAYS=DAYS), token)
    assert answered == status
    assert media == ("application/json" if status == 200 else "application/problem+json")


async def test_a_partners_list_has_itself_alone(client: Client) -> None:
    """And nothing of revenue."""
    status, _, body = await ask(client, f"/statements?month={month()}", "partner")
    assert (status, [one["id"] for one in json.loads(body)["data"]]) == (200, [2])
    assert b"revenue" not in body


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
@pytest.mark.parametrize(("token", "count"), [("root", 6), ("partner", 3), ("advertiser", 6), ("other", 0)])
async def test_an_export_streams_the_rows_of_the_key(client: Client, form: str, token: str, count: int) -> None:
    """In each form, whole; without any row too."""
    status, _, body = await ask(client, f"/exports/conversions?{DAYS}&format={form}", token)
    assert status == 200
    if form == "parquet":
        assert pq.read_table(pa.BufferReader(body)).num_rows == count
    else:
        assert len(body.splitlines()) == count + (form == "csv")


async def test_a_report_is_exported_with_all_its_rows(client: Client) -> None:
    """The figures of the report, by the dimensions asked for; money exact."""
    path = f"/exports/reports?{DAYS}&dimensions=partner,offer&metrics=conversions,payout,cr&sort=partner"
    rows = list(csv.DictReader(io.StringIO((await ask(client, path))[2].decode())))
    assert [(row["partner"], row["conversions"], Decimal(row["payout"])) for row in rows] == [("2", "3", 15), ("3", "3", 18)]
    titles = (await ask(client, f"{path}&for_spreadsheets=true"))[2].splitlines()[0]
    assert titles == b"Partner,Offer,Conversions,Payout,CR (per valid click)"
    body = (await ask(client, f"{path}&format=parquet"))[2]
    assert pq.read_table(pa.BufferReader(body)).column("payout").to_pylist() == [15, 18]
    lines = (await ask(client, f"{path}&format=ndjson&compare=previous&limit=1"))[2].splitlines()
    assert [json.loads(line)["payout_before"] for line in lines] == [0]


async def test_an_export_that_fails_in_the_middle_is_cut(
    client: Client, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came looks unfinished to its reader, and the next one is served."""
    original = export_table

    async def fail(conn: Connection, selection: Selection, shape: Shape, write: Write) -> int:
        await write(b"half a file")
        other = await connect(filled)
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clickedge admin'")
        await other.close()
        return await original(conn, selection, shape, write)

    monkeypatch.setattr(exports, "export_table", fail)
    with pytest.raises(ClientPayloadError):
        await ask(client, f"/exports/clicks?{DAYS}")
    monkeypatch.undo()
    assert (await ask(client, f"/exports/clicks?{DAYS}"))[0] == 200


@pytest.mark.parametrize("head", [b"", b"half a file"])
async def test_an_export_ends_with_its_key(
    client: Client, filled: str, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Revoked under way: refused as long as nothing was sent, else cut, so that it does not look whole."""
    token = f"leaver {len(head)}"
    await add_key(filled, token, "partner", aff_id=2)
    monkeypatch.setattr(exports, "BELIEVED_S", 0.01)
    has_begun = asyncio.Event()

    async def never_end(conn: Connection, selection: Selection, shape: Shape, write: Write) -> int:
        if head:
            await write(head)
        has_begun.set()
        await conn.execute("SELECT pg_sleep(30)")
        return 0

    monkeypatch.setattr(exports, "export_table", never_end)
    asked = asyncio.create_task(ask(client, f"/exports/clicks?{DAYS}", token))
    await has_begun.wait()
    conn = await connect(filled)
    await conn.execute("UPDATE api_keys SET revoked_at = now() WHERE key_hash = $1", hash_token(token))
    await conn.close()
    async with asyncio.timeout(20):
        if head:
            with pytest.raises(ClientPayloadError):
                await asked
        else:
            assert (await asked)[0] == 401


async def test_too_many_exports_at_once_are_put_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the rest of the API keeps its connections."""
    monkeypatch.setattr(exports, "MAX_RUNNING", 0)
    answer = await client.get(f"/api/v1/exports/clicks?{DAYS}", headers=bearer("root"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")


class Command:
    """`clickedge` in this process."""

    def __init__(self, url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._url = url
        self._capfd = capfd
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """What it prints, both streams."""
        self._monkeypatch.setattr("sys.argv", ["clickedge", *map(str, arguments), "--database", self._url])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = "".join(self._capfd.readouterr())
        assert (ended.value.code or 0) == code, printed
        return printed


@pytest.fixture
def run(filled: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on the database of this file."""
    return Command(filled, capfd, monkeypatch)


def test_the_statement_command_prints_and_writes(run: Command, tmp_path: Path) -> None:
    """An overview of all, one in words, a file for each; and says what it cannot do."""
    overview = run("statement", "--month", month())
    assert all(text in overview for text in ("Deal Blog", "Coupon Corner", "15.00 USD", "45.00 USD", "preliminary"))
    assert "PRELIMINARY" in run("statement", "--month", month(), "--partner", "2")
    run("statement", "--month", month(), "--html", "--out", tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        f"statement-{month()}-advertiser-1.html", f"statement-{month()}-partner-2.html", f"statement-{month()}-partner-3.html"
    ]  # fmt: skip
    assert "closed already" in run("statement", "--month", "2024-02", "--close") + run(
        "statement", "--month", "2024-02", "--close", code=2
    )
    assert "2024-02" in run("month", "list")
    assert "is not over" in run("statement", "--month", month(), "--close", code=2)
    assert "say --out DIR" in run("statement", "--month", month(), "--csv", code=2)
    assert "there is no partner 9" in run("statement", "--month", month(), "--partner", "9", code=2)


def test_the_export_command_writes_what_the_api_streams(run: Command, tmp_path: Path) -> None:
    """To stdout or a file, its form by its ending; a wrong one is one line and no file."""
    days = ("--from", f"{NOW - timedelta(days=1):%Y-%m-%d}")
    told = run("export", "conversions", *days, "--partner", "2", "--columns", "payout,aff_id")
    assert told.split()[:2] == ["payout,aff_id", "5.000000,2"]
    file = tmp_path / "clicks.parquet"
    assert run("export", "clicks", *days, "--out", file).startswith("6 rows, ")
    assert pq.read_table(file).num_rows == 6
    assert "write NAME=VALUE" in run("export", "clicks", *days, "--filter", "nonsense", code=2)
    assert "no such dimension" in run("export", "clicks", *days, "--filter", "colour=red", "--out", tmp_path / "x.csv", code=2)
    assert not (tmp_path / "x.csv").exists()
    told = run("export", "reports", *days, "--dimensions", "partner", "--metrics", "conversions", "--set", "sort=partner")
    assert told.split()[:3] == ["partner,conversions", "2,3", "3,3"]


def test_a_full_disk_ends_the_export_with_one_line(filled: str) -> None:
    """/dev/full takes nothing."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [COMMAND, "export", "clicks", "--from", "2020-01-01", "--database", filled],
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"clickedge: cannot write stdout: No space left on device\n")
