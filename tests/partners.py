"""Partners who listen: real HTTP servers on 127.0.0.1 that answer as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

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

    async def reset(self, request: web.Request) -> web.StreamResponse:
        """Cut the connection instead of an answer."""
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def trickle(self, request: web.Request) -> web.StreamResponse:
        """Say 200 and a word of the body, and no more."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"some")
        await self._release.wait()
        return answer

    async def close(self) -> None:
        """Let what hangs go."""
        self._release.set()

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
