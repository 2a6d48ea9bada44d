"""Partners who listen: four hosts, each of which may be told to hang."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from tests.partners import PartnerServer, say

HOSTS = 4


class Listener(PartnerServer):
    """Counts what each conversion was told to it, and no more: a soak has millions of requests."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.told: Counter[str] = Counter()
        """Requests that were answered with 200, by conversion."""
        self.hung = 0
        """Requests that were not, while it hung."""
        self._waiting = asyncio.Event()
        self._waiting.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """200; while it hangs, nothing until the sender gives up or the hanging ends."""
        if not self._waiting.is_set():
            self.hung += 1
            await self._waiting.wait()
            return await say(503)(request)
        self.told[request.query["id"]] += 1
        return await say(200)(request)

    def begin_to_hang(self) -> None:
        """From now on no request is answered."""
        self._waiting.clear()

    def end_hanging(self) -> None:
        """What still hangs gets 503, what comes 200."""
        self._waiting.set()


@asynccontextmanager
async def listening_partners() -> AsyncIterator[list[Listener]]:
    """On 127.0.0.1 and its neighbours."""
    async with AsyncExitStack() as stack:
        listeners = [Listener(f"127.0.0.{number}") for number in range(1, HOSTS + 1)]
        for listener in listeners:
            await stack.enter_async_context(listener.listening())
        yield listeners
