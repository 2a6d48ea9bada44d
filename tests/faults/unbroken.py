"""Clients who count every request that is not answered: over kept connections, and each over a new one.

A kept connection that was closed before a request went out on it is replaced; nothing else is forgiven, nothing repeated.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

from tests.faults.arrivals import wait_until_stored
from tests.faults.load import Client, Reply, id_in
from tests.node import Node

PAUSE_S = 0.004
EVERY = 4
"""Every fourth request is a postback for the click before."""


class Unbroken:
    """A load that must not notice a restart."""

    def __init__(self, port: int, *, kept: int, fresh: int) -> None:
        self._port = port
        self._numbers = (kept, fresh)
        self.clicks: dict[str, str] = {}
        """The ids that were answered, by mark."""
        self.conversions: dict[str, str] = {}
        """The click ids of conversions answered with success, by mark."""
        self.failures: list[str] = []
        self.latencies: list[float] = []

    async def run(self, during: Callable[[], object]) -> None:
        """Load while `during`, an awaitable's factory, is at work, and a little before and after."""
        stop = asyncio.Event()
        kept, fresh = self._numbers
        clients = [self._visit(f"k{number}", stop, is_kept=True) for number in range(kept)]
        clients += [self._visit(f"f{number}", stop, is_kept=False) for number in range(fresh)]
        loading = asyncio.gather(*clients)
        try:
            await during()  # type: ignore[misc]
        finally:
            stop.set()
            await loading

    async def _visit(self, name: str, stop: asyncio.Event, *, is_kept: bool) -> None:
        client, number, click_id = _Client(self._port), 0, ""
        while not stop.is_set():
            number += 1
            mark = f"{name}n{number}"
            target = f"/aff_c?offer_id=1&aff_id=1&aff_sub={mark}"
            if is_postback := bool(click_id) and number % EVERY == 0:
                target = f"/aff_lsr?transaction_id={click_id}&adv_sub={mark}&conversion_unique_id={mark}"
            asked_s = time.perf_counter()
            try:
                reply = await client.ask(target)
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"{mark}: {error!r}")
                continue
            self.latencies.append(time.perf_counter() - asked_s)
            click_id = self._note(mark, reply, click_id if is_postback else "")
            if not is_kept:
                client.close()
            await asyncio.sleep(PAUSE_S)
        client.close()

    def _note(self, mark: str, reply: Reply, converted: str) -> str:
        if converted and reply.body == b"success=true;":
            self.conversions[mark] = converted
        elif not converted and reply.status == 302:
            self.clicks[mark] = id_in(reply)
        else:
            self.failures.append(f"{mark}: {reply}")
        return self.clicks.get(mark, converted)

    async def expect_all_stored(self, node: Node) -> None:
        """Every click and conversion that was answered is in the database, once, and nothing else is."""
        await wait_until_stored(node)
        clicks = await node.fetch("SELECT aff_sub1, click_id FROM clicks")
        assert sorted(map(tuple, clicks)) == sorted((mark, UUID(one)) for mark, one in self.clicks.items())
        sent = await node.fetch("SELECT adv_sub1, click_id, status FROM conversions")
        assert sorted(map(tuple, sent)) == sorted((mark, UUID(one), "approved") for mark, one in self.conversions.items())

    @property
    def slowest_ms(self) -> float:
        """The longest that an answer took."""
        return max(self.latencies) * 1000


class _Client(Client):
    """Notices before it asks that its connection was closed."""

    async def ask(self, target: str, *, method: str = "GET", headers: str = "") -> Reply:
        if self._writer is not None and self._reader.at_eof():
            self.close()
        return await super().ask(target, method=method, headers=headers)
