"""Starting: what cannot work is refused in one clear line with exit code 2, and changes nothing."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from tests.node import COMMAND, EXAMPLE_CATALOG, Node, free_port
from tests.postgres.drains import Scribe
from tests.wire.whole_nodes import EXTERNAL, click


def refused(data_dir: Path, *flags: str, **env: str) -> str:
    """What a `serve` that must not start says beside its log: no traceback, exit code 2."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    done = subprocess.run(
        [COMMAND, "serve", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--data-dir", data_dir, *flags],
        env=environ | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith("{"))
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    assert said.startswith("clickedge: ")
    return said.removeprefix("clickedge: ")


def test_a_node_without_drains_does_not_leave_its_journals_behind(data_dir: Path) -> None:
    """Journals begun without a stream are stored by a drain of this machine only: with none, `serve` does not start."""
    scribe = Scribe(data_dir)
    scribe.click()
    scribe.close()
    stream = {"EDGE_STREAM_URL": f"nats://127.0.0.1:{free_port()}", "EDGE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    said = refused(data_dir, EDGE_DRAINS="0", **stream, **EXTERNAL)
    assert said.startswith(f"EDGE_DRAINS: 0, and 1 journals in {data_dir / 'journal'} were begun without a stream")
    assert said.count("\n") == 1


@pytest.fixture(params=["", "EDGE_PORT", "EDGE_ADMIN_PORT"])
def taken(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A setting and a port that somebody listens on, who would share it ("": the public port, not shared)."""
    with closing(socket.socket()) as listener:
        if request.param:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield request.param or "EDGE_PORT", listener.getsockname()[1]


def test_a_port_in_use_is_refused_even_if_its_holder_would_share_it(data_dir: Path, taken: tuple[str, int]) -> None:
    """One line naming the setting and the address: SO_REUSEPORT would join another program's port silently."""
    setting, port = taken
    flag = "--" + setting.removeprefix("EDGE_").lower().replace("_", "-")
    assert (
        refused(data_dir, flag, str(port)) == f"{setting}: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/clickedge", "/sys/clickedge", "x" * 300])
def test_a_data_dir_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    """Also for root, whom permissions do not stop: one line naming the setting and the folder."""
    (tmp_path / "file").touch()
    said = refused(tmp_path / place)
    assert said.startswith(f"EDGE_DATA_DIR: {tmp_path / place} cannot be ")
    assert said.count("\n") == 1


@pytest.mark.root
def test_as_root_a_data_dir_that_the_server_cannot_reach_is_refused(tmp_path: Path) -> None:
    """The folder on the way is named, another data dir is proposed, and no folder is opened to the world."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    said = refused(closed / "data")
    assert "the user `clickedge`, which PostgreSQL runs as, may not enter" in said
    assert "choose another data dir, such as /var/lib/clickedge" in said
    assert closed.stat().st_mode & 0o777 == 0o700


def test_all_faults_of_the_settings_are_said_together(data_dir: Path, tmp_path: Path) -> None:
    """Flags, environment and file: one line each, with the value and what is allowed; a secret is not repeated."""
    config = tmp_path / "clickedge.toml"
    config.write_text('session_capacity = "many"\nclick_durabilty = "disk"\n')
    said = refused(
        data_dir,
        "--config",
        str(config),
        "--workers",
        "99",
        EDGE_SECRET="hunter22",
        EDGE_PROT="80",
        EDGE_TIMEZONE="Mars",
    )
    lines = said.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == [
        "--workers",
        "EDGE_PROT",
        "EDGE_SECRET",
        "EDGE_TIMEZONE",
        f"click_durabilty in {config}",
        f"session_capacity in {config}",
    ]
    assert "EDGE_PROT: no such setting; did you mean EDGE_PORT?" in lines
    assert "--workers: '99' is not allowed; allowed: 1 to 62" in lines
    assert "hunter22" not in said
    assert not data_dir.exists()


@pytest.mark.parametrize("content", [None, b"port = \n", b"\xff", b"[serve]\nport = 1\n"])
def test_a_config_file_that_is_none_is_refused(data_dir: Path, tmp_path: Path, content: bytes | None) -> None:
    """Missing, no TOML, no text, with a table that settings do not have."""
    config = tmp_path / "clickedge.toml"
    if content is not None:
        config.write_bytes(content)
    said = refused(data_dir, "--config", str(config))
    assert str(config) in said
    assert said.count("\n") == 1


def test_unknown_flags_are_refused(data_dir: Path) -> None:
    """With click's own words and the same exit code."""
    done = subprocess.run(
        [COMMAND, "serve", "--data-dir", data_dir, "--nonsense"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "No such option '--nonsense'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:hunter22@h/x",
        "postgresql://u:hunter22@h:port/x",
        "postgresql://u:hunter22@[::1/x",
        "postgresql://u:hunter22@h/x?sslmode=perhaps",
    ],
)
def test_a_database_url_that_is_none_is_refused(data_dir: Path, url: str) -> None:
    """One line that says what one looks like; the password is not repeated."""
    said = refused(data_dir, "--database", url, **EXTERNAL)
    assert "postgresql://user:password@host:port/database" in said or "sslmode" in said
    assert said.count("\n") == 1
    assert "hunter22" not in said


def test_a_database_url_needs_a_secret_and_a_node_id(data_dir: Path) -> None:
    """Generated ones would differ from machine to machine: both are named."""
    said = refused(data_dir, "--database", "postgresql://u@h/x")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["EDGE_SECRET", "EDGE_NODE_ID"]


def test_what_the_database_refuses_is_said(data_dir: Path, postgres_url: str) -> None:
    """A wrong password, a missing database: one line, exit code 2, and the password is not repeated."""
    password = urlsplit(postgres_url).password
    assert password
    said = refused(data_dir, "--database", postgres_url.replace(password, "hunter22"), **EXTERNAL)
    assert said == 'cannot use the database: password authentication failed for user "clickedge"\n'
    said = refused(data_dir, "--database", postgres_url.replace("@/clickedge?", "@/missing?"), **EXTERNAL)
    assert said == 'cannot use the database: database "missing" does not exist\n'


async def test_a_catalog_with_faults_stops_the_start_and_changes_nothing(
    data_dir: Path, tmp_path: Path, database: str
) -> None:
    """Every fault with its file, table, id and field; no revision is made; a file that is missing is said at once."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        EXAMPLE_CATALOG.read_text()
        .replace('payout = "5.00"', 'payout = "five"')
        .replace("aff_id = 2 }", "aff_id = 99 }")
    )
    said = await asyncio.to_thread(refused, data_dir, "--apply", str(catalog), "--database", database, **EXTERNAL)
    assert [line.split(": ")[:2] for line in said.splitlines()] == [
        [str(catalog), "offers[17].payout"],
        [str(catalog), "aliases[SL2].params.aff_id"],
    ]
    conn = await asyncpg.connect(database)
    assert not await conn.fetchval("SELECT count(*) FROM catalog_revisions")
    await conn.close()
    said = await asyncio.to_thread(refused, data_dir, "--apply", "/no/catalog.toml")
    assert said == "cannot read /no/catalog.toml: No such file or directory\n"


@pytest.mark.reliability(number=8)
async def test_a_running_node_is_not_disturbed_by_a_second_one(make_node: Callable[..., Node]) -> None:
    """Its data dir and both its ports are refused to another `serve`, each in one line; it stays ready."""
    node = await make_node().start()
    spare = node.data_dir.with_name(node.data_dir.name + "-second")
    said = await asyncio.to_thread(refused, node.data_dir, "--port", str(free_port()))
    assert said == f"EDGE_DATA_DIR: another `clickedge serve` runs on {node.data_dir}\n"
    said = await asyncio.to_thread(refused, spare, "--port", str(node.port))
    assert said == f"EDGE_PORT: cannot listen on 127.0.0.1:{node.port}: Address already in use\n"
    said = await asyncio.to_thread(refused, spare, "--admin-port", str(node.admin_port))
    assert said == f"EDGE_ADMIN_PORT: cannot listen on 127.0.0.1:{node.admin_port}: Address already in use\n"
    await node.wait_ready()
    assert await node.stop() == 0


async def test_another_postgresql_serves_as_well(make_node: Callable[..., Node], any_database: str) -> None:
    """With a database URL no embedded server is made; a second start needs no catalog file."""
    node = await make_node(EDGE_DATABASE_URL=any_database, **EXTERNAL).start()
    async with aiohttp.ClientSession() as session:
        click_id = await click(session, node)
        async with session.get(f"{node.origin}/aff_lsr?transaction_id={click_id.hex}") as answer:
            assert await answer.text() == "success=true;"
    assert await node.stop() == 0
    conn = await asyncpg.connect(any_database)
    assert await conn.fetchval("SELECT status FROM conversions WHERE click_id = $1", click_id) == "approved"
    await conn.close()
    assert not list(node.data_dir.glob("postgres*"))
    assert not (node.data_dir / "database.url").exists()
    node._catalog = None
    await node.start()
    async with aiohttp.ClientSession() as session:
        await click(session, node)
    assert await node.stop() == 0


@pytest.mark.faults
async def test_what_cannot_be_printed_stops_no_node(make_node: Callable[..., Node], database: str) -> None:
    """Behind stdout is a full disk, or a pipe that nobody reads any more: only the welcome is lost."""
    node = make_node(EDGE_DATABASE_URL=database, **EXTERNAL)
    node.stdout = Path("/dev/full")
    await node.start()
    assert await node.stop() == 0
