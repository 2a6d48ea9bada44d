"""Composition root of the admin process: metrics, health, and the way of catalog and caps from Postgres to the workers."""

import asyncio
import socket
from zoneinfo import ZoneInfo

import structlog
from aiohttp import web

from edge.admin.api import OPERATIONS
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.admin.catalog_publisher import CatalogPublisher
from edge.admin.console import PAGES, Console
from edge.admin.import_queue import queue_of
from edge.admin.metrics import CONTENT_TYPE, Slot, drain_lag_s, render
from edge.admin.node_watch import NodeWatch
from edge.admin.roll_up import RollUp
from edge.admin.state_publisher import StatePublisher
from edge.admin.traffic import count_traffic
from edge.catalog_follower import SNAPSHOT
from edge.counters import Counters, cell
from edge.processes import ChildOrders, stop_requested
from edge.state_follower import STATE

log = structlog.get_logger()

_UP = cell("edge_process_up")
DEGRADED_LAG_S = 60


class Admin:
    """The admin listener."""

    def __init__(self, slots: list[Slot]) -> None:
        self._slots = slots
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/livez", self._live),
                web.get("/readyz", self._ready),
            ]
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=render(self._slots), headers={"Content-Type": CONTENT_TYPE})

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        if not any(slot.cells[_UP] for slot in self._slots if slot.labels[0] == "worker"):
            return web.Response(status=503, text="no worker runs\n")
        missing = [" ".join(slot.labels) for slot in self._slots if not slot.cells[_UP]]
        if missing:
            return web.Response(text=f"degraded: not running: {', '.join(missing)}\n")
        if drain_lag_s(self._slots) > DEGRADED_LAG_S:
            return web.Response(text="degraded: the drain is more than a minute behind\n")
        return web.Response(text="ready\n")


async def run_admin(orders: ChildOrders, counters: Counters) -> None:
    """Serve the admin port and publish catalog and state until SIGTERM."""
    stop = stop_requested()
    slots = [Slot(role, number, Counters.of_fd(fd)) for role, number, fd in orders.slots]
    settings = orders.settings
    backend = Backend(settings, orders.resolve_database, slots, counters)
    app = Admin(slots).app
    count_traffic(app, counters)
    app.add_subapp("/api/", make_api(backend, OPERATIONS))
    app.add_routes(Console(backend, PAGES).routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for fd in orders.listen_fds:
        await web.SockSite(runner, socket.socket(fileno=fd)).start()
    publisher = CatalogPublisher(orders.resolve_database, settings.data_path / SNAPSHOT)
    states = StatePublisher(orders.resolve_database, settings.data_path / STATE, ZoneInfo(settings.timezone), counters)
    roll_up = RollUp(orders.resolve_database, settings.timezone, counters)
    watch = NodeWatch(backend, orders.resolve_database, counters)
    lasting = (publisher.run(), states.run(), roll_up.run(), watch.run(), queue_of(backend).run())
    publishing = [asyncio.create_task(one) for one in lasting]
    stopping = asyncio.create_task(stop.wait())
    log.info("admin_ready")
    await asyncio.wait((*publishing, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in publishing:
        if task.done():
            task.result()  # it never ends by itself: say why it did
        task.cancel()
    await asyncio.gather(*publishing, return_exceptions=True)
    await runner.cleanup()
    await backend.close()
