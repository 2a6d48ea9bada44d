"""All the parts together: started in order, ended in order, each by the process id that it was started with."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import asyncpg

from benchmarks.cluster.database import Database
from benchmarks.cluster.programs import DrainProgram, Edge, Program
from benchmarks.nats import NatsCluster
from storage.postgres.server_user import make_data_dir

SECRET = "that-all-edges-of-this-cluster-share"
ALL_SETTINGS = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.0/8",
    "EDGE_POSTBACK_ALLOW": "127.0.0.0/8",
    "EDGE_POSTBACK_TIMEOUT": "4s",
    "EDGE_POSTBACK_RETRY": "1s",
}


class Parts:
    """NATS servers, PostgreSQL, edges and drains below one directory. `async with`: they run within."""

    def __init__(
        self, directory: Path, catalog: Path, *, nats: int = 3, edges: int = 2, drains: int = 2, settings: Mapping[str, str]
    ) -> None:
        """`settings`: for edges and drains, beyond what connects them."""
        self.directory = directory
        make_data_dir(directory)
        self.nats = NatsCluster(directory / "nats", nats)
        self.database = Database(directory / "postgres")
        connecting = {**self.nats.settings, "EDGE_DATABASE_URL": self.database.url, "EDGE_SECRET": SECRET}
        self.settings = {**ALL_SETTINGS, **connecting, **settings}
        """Of every edge and drain, and of commands about them."""
        self.edges = [
            Edge(number, directory / f"edge{number}", catalog, {**self.settings, "EDGE_DRAINS": "0"})
            for number in range(edges)
        ]
        self.drains = [DrainProgram(number, directory / f"drain{number}", self.settings) for number in range(drains)]

    @property
    def programs(self) -> list[Program]:
        """Edges and drains."""
        return [*self.edges, *self.drains]

    async def __aenter__(self) -> Self:
        try:
            self.nats.launch()
            await self.database.start()
            await self.nats.wait_ready()
            for program in self.programs:
                program.launch()
            for program in self.programs:
                await program.wait_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*(edge.stop() for edge in self.edges))
            await asyncio.gather(*(drain.stop() for drain in self.drains))
        finally:
            self.nats.stop()
            self.database.stop()

    async def wait_until_well(self, timeout_s: float = 120.0) -> None:
        """Until every part is whole and works. SoakFailed, NatsFailed: not within that time."""
        for program in self.programs:
            await program.wait_ready(timeout_s)
        await self.nats.wait_ready("CLICKEDGE", timeout_s)

    async def connect(self) -> asyncpg.Connection:
        """To the database."""
        return await asyncpg.connect(self.database.url, timeout=5)
