"""A real node: `clickedge serve` with all its processes, on free ports, in a directory of its own."""

import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

EXAMPLE_CATALOG = Path(__file__).parent.parent / "examples" / "catalog.toml"
COMMAND = Path(sys.executable).with_name("clickedge")
READY_S = 60.0
GONE_S = 60.0


def _own_ports() -> Iterator[int]:
    """Again and again this test process's share of the ports, so that no other one takes what this one is about to use."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    share = range(15_000 + worker * 2_200, 15_000 + (worker + 1) * 2_200)
    return itertools.islice(itertools.cycle(share), random.randrange(len(share)), None)


_ports = _own_ports()


def free_port() -> int:
    """A port nobody listens on at this moment, and none of those given out lately. Below those that the kernel gives
    clients: a client of a port that is closed for a while would now and then get that very port, and be connected to itself.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("ports never end")


class Node:
    """One `clickedge serve`. Ports and data stay the same over restarts."""

    def __init__(self, data_dir: Path, *, catalog: Path | None = EXAMPLE_CATALOG, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port, self.admin_port = free_port(), free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self.stdout = self.log_path
        self._catalog = catalog
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, *flags: str) -> None:
        """Start the supervisor; `wait_ready` says when it answers."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        applying = ["--apply", str(self._catalog)] if self._catalog else []
        with self.log_path.open("ab") as log, self.stdout.open("ab") as printed:
            self._process = subprocess.Popen(
                [
                    str(COMMAND), "serve", "--host", "127.0.0.1", "--port", str(self.port),
                    "--admin-port", str(self.admin_port), "--data-dir", str(self.data_dir), *applying, *flags,
                ],
                env={**environ, **self._env}, stdin=subprocess.DEVNULL, stdout=printed, stderr=log,
            )  # fmt: skip

    async def start(self, *flags: str) -> "Node":
        """Start, and wait until clicks are answered and the drain and admin process run."""
        self.launch(*flags)
        await self.wait_ready()
        return self

    async def wait_ready(self) -> None:
        """Until the public and the admin port both say that they are ready."""
        async with aiohttp.ClientSession() as session:
            await eventually(lambda: self._is_ready(session, self.origin), READY_S, self.describe)
            await eventually(lambda: self._is_ready(session, self.admin), READY_S, self.describe)

    async def _is_ready(self, session: aiohttp.ClientSession, origin: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"ended with code {self._process.returncode}\n{self.describe()}"
        return await _is_ready(session, origin)

    async def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Signal the supervisor and wait for its end; the exit code."""
        process = self._process
        assert process is not None
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return await asyncio.to_thread(process.wait, timeout_s)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def pids(self, role: str) -> list[int]:
        """Running processes of a role: worker, drain, sender, admin or postgres."""
        wanted = (b"/postgres\0-D",) if role == "postgres" else (b"edge.child\0" + role.encode(),)
        return [pid for pid, command in _children(self.pid) if any(part in command for part in wanted)]

    def kill(self, role: str, index: int = 0, number: int = signal.SIGKILL) -> int:
        """Signal one process of a role; its id."""
        pid = self.pids(role)[index]
        os.kill(pid, number)
        return pid

    def family(self) -> list[int]:
        """The supervisor and everything below it, Postgres's processes too."""
        return [self.pid, *_descendants(self.pid)]

    def backends(self) -> list[int]:
        """The processes of Postgres that serve a connection."""
        [postmaster] = self.pids("postgres")
        return [pid for pid, command in _children(postmaster) if command.startswith(b"postgres: clickedge")]

    @property
    def database_url(self) -> str:
        """The embedded database, while it runs."""
        return (self.data_dir / "database.url").read_text().strip()

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of a query on the node's database."""
        conn = await asyncpg.connect(self.database_url)
        try:
            rows: list[asyncpg.Record] = await conn.fetch(query, *arguments)
            return rows
        finally:
            await conn.close()

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of the admin page; 0 where there is none."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/metrics") as answer:
            page = await answer.text()
        total = 0.0
        for line in page.splitlines():
            if line.split("{")[0].split(" ")[0] == name and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def describe(self) -> str:
        """The end of the log, for a failed test."""
        return self.log_path.read_text(errors="replace")[-4000:]


async def eventually(
    check: Callable[[], Awaitable[bool]], timeout_s: float, describe: Callable[[], str] = lambda: ""
) -> None:
    """Until `check` says yes; AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not await check():
        assert time.monotonic() < deadline, f"not within {timeout_s} s\n{describe()}"
        await asyncio.sleep(0.05)


async def _is_ready(session: aiohttp.ClientSession, origin: str) -> bool:
    try:
        async with session.get(f"{origin}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _children(parent: int) -> list[tuple[int, bytes]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append((int(entry.name), (entry / "cmdline").read_bytes()))
    return found


def _descendants(parent: int) -> list[int]:
    found = [pid for pid, _ in _children(parent)]
    return [*found, *(pid for child in found for pid in _descendants(child))]


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than an exit code that nobody fetched."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
async def make_node(data_dir: Path) -> AsyncIterator[Callable[..., Node]]:
    """A factory of nodes, each in a data dir of its own; at the end what still runs is killed, and the data removed."""
    nodes: list[Node] = []

    def make(*, catalog: Path | None = EXAMPLE_CATALOG, **env: str) -> Node:
        node = Node(data_dir.with_name(f"{data_dir.name}-{len(nodes)}"), catalog=catalog, env=env)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        if node._process is not None and node._process.poll() is None:
            await end(node)
        # Each holds a database: a whole run's would be gigabytes, and a minute to remove at its end.
        shutil.rmtree(node.data_dir, ignore_errors=True)


async def end(node: Node) -> None:
    """Kill the supervisor and wait until everything below it is gone: Postgres shuts down, and still writes."""
    family = node.family()
    await node.stop(signal.SIGKILL)

    async def is_gone() -> bool:
        return not any(map(is_running, family))

    await eventually(is_gone, GONE_S, node.describe)


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    """A running node with one worker and the example catalog."""
    return await make_node().start()
