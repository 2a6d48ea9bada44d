"""`clickedge ship` and `clickedge drain`: processes of one kind without the rest of a node, kept running, and their metrics."""

import asyncio
import os
import resource
import signal

import structlog
from aiohttp import web

from edge.admin.metrics import CONTENT_TYPE, Slot, drain_lag_s, render
from edge.counters import Counters, cell, new_block
from edge.errors import UserError
from edge.migrating import MIGRATION_S, migrate_database
from edge.offspring import Child, run_once
from edge.processes import ChildOrders, stop_requested
from edge.settings import Settings
from edge.vitals import Vitals
from storage.postgres.connection import is_retryable
from storage.postgres.server_user import make_data_dir

log = structlog.get_logger()

FINISH_S = 30.0
DEGRADED_LAG_S = 60
RETRY_S = 1.0

_UP = cell("edge_process_up")
_STARTS = cell("edge_process_starts_total")


class Crew:
    """So many processes of one role. SIGHUP replaces them by ones of the code that is installed then."""

    def __init__(self, settings: Settings, role: str, size: int) -> None:
        make_data_dir(settings.data_path)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._settings = settings
        self._role = role
        self._blocks = {(role, slot): new_block() for slot in range(size)} | {("supervisor", 0): new_block()}
        self._slots = [Slot(name, slot, Counters.of_fd(block)) for (name, slot), block in self._blocks.items()]
        self._children = [
            Child(ChildOrders(role, slot, settings, block, []), Counters.of_fd(block))
            for (name, slot), block in self._blocks.items()
            if name == role
        ]
        self._stop = stop_requested()
        self._reload_asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_asked.set)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. UserError: the metrics' port is taken. StorageError: the database is of no use."""
        own = Counters.of_fd(self._blocks["supervisor", 0])
        own.cells[_UP] = own.cells[_STARTS] = 1
        jobs = [asyncio.create_task(job) for job in (Vitals(own).watch(), self._reload_when_told())]
        runner = await self._listen()
        stopping = asyncio.create_task(self._stop.wait())
        try:
            preparing = asyncio.create_task(self._prepare())
            await asyncio.wait((preparing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                await preparing
                for child in self._children:
                    child.start()
                log.info("crew_started", role=self._role, size=len(self._children))
            await stopping
        finally:
            await asyncio.gather(*(child.stop(FINISH_S) for child in self._children))
            await runner.cleanup()
            for job in jobs:
                job.cancel()
            log.info("stopped")

    async def _prepare(self) -> None:
        """For drains: a database that knows this code's tables."""
        while self._role == "drain":
            try:
                await migrate_database(self._settings.database_url)
                return
            except Exception as error:
                if not is_retryable(error):
                    log.error("database_unusable", error=str(error))
                    raise
                log.warning("database_away", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _reload_when_told(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            log.info("reloading")
            if not await self._migrate():
                log.error("reload_given_up", hint="nothing was replaced; mend what is installed, and reload again")
                continue
            for child in self._children:
                await child.replace(FINISH_S, stands_by=False)
            log.info("reloaded")

    async def _migrate(self) -> bool:
        """For drains: by a process of the code that is installed now, which knows tables that this one does not."""
        if self._role != "drain":
            return True
        block = new_block()
        try:
            return await run_once(ChildOrders("migration", 0, self._settings, block, []), MIGRATION_S) == 0
        finally:
            os.close(block)

    async def _listen(self) -> web.AppRunner:
        """`/metrics`, `/livez` and `/readyz` on the admin address."""
        app = web.Application()
        pages = {"/metrics": self._metrics, "/livez": self._live, "/readyz": self._ready}
        app.add_routes([web.get(path, answer) for path, answer in pages.items()])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, port = self._settings.admin_host, self._settings.admin_port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UserError(f"EDGE_ADMIN_PORT: cannot listen on {host} port {port}: {error.strerror}") from error
        return runner

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=render(self._slots), headers={"Content-Type": CONTENT_TYPE})

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        missing = [" ".join(slot.labels) for slot in self._slots if not slot.cells[_UP]]
        if len(missing) == len(self._children):
            return web.Response(status=503, text=f"no {self._role} runs\n")
        if missing:
            return web.Response(text=f"degraded: not running: {', '.join(missing)}\n")
        if drain_lag_s(self._slots) > DEGRADED_LAG_S:
            return web.Response(text="degraded: the drains are more than a minute behind\n")
        return web.Response(text="ready\n")
