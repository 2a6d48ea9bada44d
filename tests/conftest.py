"""Real PostgreSQL servers for the tests: the embedded one and Debian's, each started once, fresh databases in them.

Tests that need a Debian package which is missing are left out, and the summary names the package.
"""

import asyncio
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from storage.postgres.connection import connect
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrations import migrate

# How long an example takes, and how long it takes to think of one, says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("any machine")

pytest_plugins = ["tests.loops", "tests.node", "tests.streams"]

DEBIAN_POSTGRES = Path("/usr/lib/postgresql/15/bin")
CHROMIUM = Path("/usr/bin/chromium")
HAPROXY, NGINX = Path("/usr/sbin/haproxy"), Path("/usr/sbin/nginx")
PROMTOOL = Path("/usr/bin/promtool")
SYSTEMD_ANALYZE = Path("/usr/bin/systemd-analyze")
DEBIAN_PACKAGES = {
    "chromium": CHROMIUM,
    "haproxy": HAPROXY,
    "nginx": NGINX,
    "postgresql-15": DEBIAN_POSTGRES / "postgres",
    "prometheus": PROMTOOL,
    "systemd": SYSTEMD_ANALYZE,
}
LONG_TEST_S = 20
_TEMPLATE = "migrated_template"
_left_out: dict[str, int] = {}


def missing_debian_packages() -> list[str]:
    """The Debian packages that some test needs and this machine lacks."""
    return [name for name, program in DEBIAN_PACKAGES.items() if not program.exists()]


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers."""
    config.addinivalue_line("markers", "debian(package): needs this Debian package; left out where it is missing")
    config.addinivalue_line("markers", "root: about what root meets; left out for other users")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run here."""
    missing = missing_debian_packages()
    for item in list(items):
        want = ""
        if (mark := item.get_closest_marker("debian")) and mark.args[0] in missing:
            want = f"the Debian package {mark.args[0]}"
        elif item.get_closest_marker("root") and os.geteuid() != 0:
            want = "root's rights"
        if want:
            _left_out[want] = _left_out.get(want, 0) + 1
            items.remove(item)
            config.hook.pytest_deselected(items=[item])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """No test begins in the last seconds of half an hour: what it makes would be of another hour, day or month than what it
    asks for. Half an hour, since days begin there too, in India.
    """
    left_s = 1800 - time.time() % 1800
    if left_s < LONG_TEST_S:
        time.sleep(left_s)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several that run the tests tells the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Each of several processes leaves out the same tests: what one says is true of all."""
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and for want of what."""
    for want, count in _left_out.items():
        terminalreporter.line(f"left out for want of {want}: {count} tests")


@dataclass(frozen=True)
class Server:
    """A running server, its URL, and the loop that watches it."""

    postgres: EmbeddedPostgres
    url: str
    runner: asyncio.Runner

    def execute(self, sql: str) -> None:
        """Run a statement outside any transaction, from a test's synchronous part."""
        self.runner.run(_execute(self.url, sql))


async def _execute(url: str, sql: str) -> None:
    connection = await connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _database_url(url: str, database: str) -> str:
    return url.replace("@/clickedge?", f"@/{database}?")


async def _migrate(url: str) -> None:
    connection = await connect(url)
    try:
        await migrate(connection)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """A directory that any user can reach, also when root runs the tests (pytest's own is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="clickedge-tests-", dir="/var/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data_dir(short_directory: Path) -> Iterator[Path]:
    """The name of a data dir, reachable by any user; nothing is there yet."""
    directory = short_directory / uuid.uuid4().hex[:12]
    yield directory
    shutil.rmtree(directory, ignore_errors=True)  # not all at the end, where it takes a slow disk minutes


def _run_server(data_dir: Path, binaries: Path | None) -> Iterator[Server]:
    settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
    postgres = EmbeddedPostgres(data_dir, settings=settings, binaries=binaries)
    with asyncio.Runner() as runner:
        server = Server(postgres, runner.run(postgres.start()), runner)
        try:
            server.execute(f"CREATE DATABASE {_TEMPLATE}")
            runner.run(_migrate(_database_url(server.url, _TEMPLATE)))
            yield server
        finally:
            runner.run(postgres.stop())


@pytest.fixture(scope="session")
def embedded_server(short_directory: Path) -> Iterator[Server]:
    """The embedded server, shared by all tests."""
    yield from _run_server(short_directory / "embedded", None)


@pytest.fixture(scope="session")
def debian_server(short_directory: Path) -> Iterator[Server]:
    """Debian's PostgreSQL 15, run likewise."""
    yield from _run_server(short_directory / "debian15", DEBIAN_POSTGRES)


@pytest.fixture(scope="session")
def postgres_url(embedded_server: Server) -> str:
    """The URL of the embedded server; its database is empty and not to be changed."""
    return embedded_server.url


@pytest.fixture(scope="session")
def postgres15_url(debian_server: Server) -> str:
    """The URL of Debian's server; its database is empty and not to be changed."""
    return debian_server.url


def _fresh_database(server: Server, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    # Without fsync a copy of the files takes a fifth of the time that writing each page through the log takes.
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY = FILE_COPY")
    yield _database_url(server.url, name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fresh_database(server: Server) -> Iterator[str]:
    """The URL of a fresh database with the current schema, for a fixture that a whole module shares."""
    yield from _fresh_database(server, _TEMPLATE)


@pytest.fixture
def database(embedded_server: Server) -> Iterator[str]:
    """The URL of a fresh database with the current schema, in the embedded server."""
    yield from _fresh_database(embedded_server, _TEMPLATE)


_SERVERS = [
    pytest.param("embedded_server", id="embedded18"),
    pytest.param("debian_server", id="debian15", marks=[pytest.mark.debian("postgresql-15"), pytest.mark.older_server]),
]


@pytest.fixture(params=_SERVERS)
def any_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database with the current schema, in the embedded server and in Debian's."""
    yield from _fresh_database(request.getfixturevalue(request.param), _TEMPLATE)


@pytest.fixture(params=_SERVERS)
def empty_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database without any table, in the embedded server and in Debian's."""
    yield from _fresh_database(request.getfixturevalue(request.param), "template1")
