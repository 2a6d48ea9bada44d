"""Partners who listen, and the sender who tells them: real HTTP servers on 127.0.0.1, the real sender in this process."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

from edge.counters import Counters
from edge.processes import ChildOrders
from edge.sender.delivery import open_client
from edge.sender.process import Sender
from tests.postgres.drains import CATALOG, Bench, make_settings

SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = "127.0.0.0/8"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Heard(NamedTuple):
    """One request as the partner saw it."""

    method: str
    target: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class PartnerServer:
    """Hears every request, and answers as `reply` says: 200 at first."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.heard: list[Heard] = []
        self.reply: Reply = say(200)
        self.origin = ""
        self._release = asyncio.Event()

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Answer only when the server is closed."""
        await self._release.wait()
        return web.Response()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request, then answer."""
        body = await request.read()
        self.heard.append(
            Heard(request.method, request.raw_path, dict(request.query), dict(request.headers), body)
        )
        return await self.reply(request)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["PartnerServer"]:
        """On a free port of its address."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, 0)
        await site.start()
        self.origin = f"http://{self.host}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._release.set()
            await runner.cleanup()


def say(status: int, text: str = "ok", **headers: str) -> Reply:
    """A reply that is always the same."""

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={name.replace("_", "-"): one for name, one in headers.items()})

    return reply


def in_turn(*replies: Reply) -> Reply:
    """One reply after the other; the last for ever."""
    left = list(replies)

    async def reply(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return reply


def partners_toml(text: str) -> str:
    """The drain tests' catalog, with `text` as more fields of partner 2."""
    head = 'id = 2\nname = "Deal Blog"\n'
    assert head in CATALOG
    return CATALOG.replace(head, f"{head}{text}\n")


@asynccontextmanager
async def sending(bench: Bench, *, client: Any = None, **settings: Any) -> AsyncIterator[Sender]:
    """The real sender on the bench's database, until the end of the block; it then finishes as by SIGTERM."""
    values: dict[str, Any] = {"postback_allow": (LOOPBACK,), "postback_timeout_s": 5, "postback_retry_s": 1, **settings}
    given = make_settings(bench.data_dir, bench.url, **values)
    async with open_client(given.postback_networks, given.postback_timeout_s) as opened:
        sender = Sender(ChildOrders("sender", 0, given, -1, []), Counters.private(), client or opened)
        task = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            sender._stop.set()
            await task


async def states(bench: Bench) -> dict[str, int]:
    """How many rows of the outbox are in each state."""
    rows = await bench.conn.fetch("SELECT state, count(*) AS n FROM postback_outbox GROUP BY 1")
    return {row["state"]: row["n"] for row in rows}


async def hurry(bench: Bench, seconds: float = math.inf) -> None:
    """Let the time until the next attempts pass."""
    await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now() WHERE leased_by IS NULL")
