"""NATS servers with the configuration of deploy/cluster, on ports of the test's own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import nats
from nats.aio.client import Client

from storage.stream.servers import StreamOptions
from tests.node import eventually, free_port

CONFIG = Path(__file__).parents[2] / "deploy" / "cluster" / "nats.conf"
NATS_SERVER = Path(sys.executable).with_name("nats-server")
PASSWORDS = {f"NATS_{user.upper()}_PASSWORD": f"p{user}1" for user in ("route", "edge", "drain", "system")}


class StreamServer(NamedTuple):
    """Where one listens."""

    port: int
    monitor_port: int

    def options(self, user: str, max_bytes: int = 2**20) -> StreamOptions:
        """As a node of ours has them, for one server."""
        url = f"nats://{user}:p{user}1@127.0.0.1:{self.port}"
        return StreamOptions(url, replicas=1, max_bytes=max_bytes, monitor_port=self.monitor_port)

    @asynccontextmanager
    async def connected(self, user: str, refused: list[str]) -> AsyncIterator[Client]:
        """A client of that user; what the server refuses it is appended to `refused`."""

        async def note(error: Exception) -> None:
            refused.append(str(error))

        client = await nats.connect(
            f"nats://127.0.0.1:{self.port}", user=user, password=f"p{user}1", inbox_prefix=f"_INBOX.{user}",
            error_cb=note, max_reconnect_attempts=0,
        )  # fmt: skip
        try:
            yield client
        finally:
            await client.close()


def environment_of(store: Path, routes: str = "[]", name: str = "nats-0") -> dict[str, str]:
    """What nats.conf takes from it."""
    given = {"NATS_NAME": name, "NATS_STORE": str(store), "NATS_MAX_STORE": "256MB", "NATS_ROUTES": routes}
    return {**os.environ, **PASSWORDS, **given}


@asynccontextmanager
async def serving(directory: Path, sync_interval: str = "always") -> AsyncIterator[StreamServer]:
    """One server with our configuration, but for its ports and, being alone, without the cluster."""
    server = StreamServer(free_port(), free_port())
    text = CONFIG.read_text().replace("port: 4222", f"listen: '127.0.0.1:{server.port}'")
    text = text.replace("http_port: 8222", f"http: '127.0.0.1:{server.monitor_port}'")
    text = text.replace("sync_interval: always", f"sync_interval: {sync_interval}")
    before, _, rest = text.partition("cluster {\n")
    config = directory / "nats.conf"
    config.write_text(before + rest.partition("\n}\n")[2])
    process = await asyncio.create_subprocess_exec(
        NATS_SERVER, "--config", config, env=environment_of(directory / "store"), stderr=asyncio.subprocess.DEVNULL
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(answers, 20.0)
        yield server
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def serving_three(directory: Path) -> AsyncIterator[str]:
    """Three servers as they are configured, cluster and all, but for their ports; their addresses, with commas between."""
    names = ["nats-0", "nats-1", "nats-2"]
    ports = {name: free_port() for name in names}
    route_ports = {name: free_port() for name in names}
    routes = [f'"nats://route:proute1@127.0.0.1:{port}"' for port in route_ports.values()]
    processes = []
    for name in names:
        text = CONFIG.read_text().replace("port: 4222", f"listen: '127.0.0.1:{ports[name]}'")
        text = text.replace("http_port: 8222", "").replace("port: 6222", f"listen: '127.0.0.1:{route_ports[name]}'")
        config = directory / f"{name}.conf"
        config.write_text(text)
        environment = environment_of(directory / name, f"[{', '.join(routes)}]", name)
        arguments = [str(NATS_SERVER), "--config", str(config)]
        processes.append(
            await asyncio.create_subprocess_exec(*arguments, env=environment, stderr=asyncio.subprocess.DEVNULL)
        )
    try:
        yield ",".join(f"127.0.0.1:{port}" for port in ports.values())
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await process.wait()
