"""The journal filled to EDGE_JOURNAL_MAX_BYTES while PostgreSQL stands still, and freed again.

Padded clicks until both workers count clicks as dropped (90 %), then padded postbacks until conversions get 503 (100 %).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.scraping import read_page, total
from benchmarks.soak.faults.database import paused
from benchmarks.soak.ledger import OK, REFUSED, UNANSWERED, WRONG
from benchmarks.soak.node import SoakFailed, eventually
from benchmarks.soak.scene import Scene
from tests.faults.load import Client

CLIENTS = 16
STEP = 8
"""Requests of a client between two looks: a worker learns but twice a second what the other has written."""
FULL_S = 600.0
FREED_S = 120.0
_PADDING = "&".join(f"pad{number}={'p' * 500}" for number in range(12))


class Flood:
    """Requests as large as they may be, in the ledger like all others."""

    def __init__(self, scene: Scene, click_id: str) -> None:
        self._scene = scene
        self._clients = [Client(scene.node.port) for _ in range(CLIENTS)]
        self._click_id = click_id
        self.refused = 0

    async def click(self, client: Client) -> None:
        """One that must be redirected whatever the journal."""
        mark = self._scene.mark()
        await self._send(client, mark, "clicks", f"/aff_c?offer_id=1&aff_id=1&aff_sub4={mark}&{_PADDING}")

    async def convert(self, client: Client) -> None:
        """A conversion of its own kind: it counts by the id that it brings."""
        mark = self._scene.mark()
        target = f"/aff_lsr?transaction_id={self._click_id}&conversion_unique_id={mark}&adv_sub4={mark}&{_PADDING}"
        await self._send(client, mark, "conversions approved", target, family=f"{self._click_id}/{mark}")

    async def _send(self, client: Client, mark: str, kind: str, target: str, family: str = "") -> None:
        ledger, began_s = self._scene.ledger, time.time()
        ledger.sent(mark, kind, began_s, family)
        try:
            reply = await client.ask(target)
        except (OSError, EOFError, TimeoutError) as error:
            ledger.answered(mark, UNANSWERED, time.time(), (time.time() - began_s) * 1000)
            raise SoakFailed(f"a request of the flood was not answered: {error!r}") from error
        took_ms = (time.time() - began_s) * 1000
        if family and reply.status == 503 and "Retry-After" in reply.headers:
            self.refused += 1
            ledger.answered(mark, REFUSED, time.time(), took_ms)
        elif reply.status == 302 or reply.body == b"success=true;":
            click_id = reply.headers.get("Location", "").partition("clickid=")[2][:32]
            ledger.answered(mark, OK, time.time(), took_ms, click_id)
        else:
            ledger.answered(mark, WRONG, time.time(), took_ms)

    async def until(self, send: Callable[[Client], Awaitable[None]], is_full: Callable[[], Awaitable[bool]]) -> None:
        """All clients at once, in steps. SoakFailed when it is not full in good time."""
        deadline_s = time.monotonic() + FULL_S

        async def run(client: Client) -> None:
            for _ in range(STEP):
                await send(client)

        while not await is_full():
            if time.monotonic() > deadline_s:
                raise SoakFailed(f"the journal was not full within {FULL_S:.0f} s")
            await asyncio.gather(*map(run, self._clients))

    def close(self) -> None:
        """Let go of all connections."""
        for client in self._clients:
            client.close()


async def fill(scene: Scene) -> str:
    """Dropped clicks are counted, conversions refused; once PostgreSQL goes on, everything is recorded again."""
    before = await _dropped(scene)
    flood = Flood(scene, await scene.click())
    try:
        async with paused(scene):
            await flood.until(flood.click, lambda: _has_dropped(scene, before))
            await flood.until(flood.convert, lambda: _has_refused(flood))
            filled_bytes = scene.node.undrained_bytes()
            await asyncio.sleep(1)
    finally:
        flood.close()
    began_s = time.monotonic()
    await eventually(lambda: _is_recorded(scene), FREED_S, "clicks are still dropped")
    freed_s = time.monotonic() - began_s
    dropped = await _dropped(scene) - before
    return (
        f"{filled_bytes / 2**20:.1f} MiB in the journal, {dropped} clicks and impressions counted as dropped,"
        f" {flood.refused} of the flood's conversions refused; recorded again {freed_s:.1f} s after PostgreSQL went on"
    )


async def _dropped(scene: Scene) -> int:
    page = await asyncio.to_thread(read_page, scene.node)
    return int(total(page, "edge_events_dropped_total"))


async def _has_dropped(scene: Scene, before: int) -> bool:
    return await _dropped(scene) - before > CLIENTS * STEP


async def _has_refused(flood: Flood) -> bool:
    return flood.refused > CLIENTS * STEP


async def _is_recorded(scene: Scene) -> bool:
    """No click was dropped for a second."""
    before = await _dropped(scene)
    await asyncio.sleep(1)
    return await _dropped(scene) == before
