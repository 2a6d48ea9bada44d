"""The public port of one worker: the lane in front, aiohttp behind it, one tracker for both."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

from edge.http.deadlines import sweep
from edge.http.lane import Lane, LanePort
from edge.http.routes import Routes
from edge.http.tracker import Tracker
from edge.tracking.state import EdgeState
from storage.journal.commit import GroupCommit


class PublicPort:
    """A factory of connections, for `create_server`. `readiness` gives the status and text of `/readyz`."""

    def __init__(
        self,
        state: EdgeState,
        journal: GroupCommit,
        *,
        readiness: Callable[[], tuple[int, str]],
        on_broken: Callable[[BaseException], None],
        trusted: tuple[IPv4Network | IPv6Network, ...],
        durable_clicks: bool,
        durable_conversions: bool,
        is_lane_on: bool = True,
        has_proxy: bool = False,
        max_connections: int,
    ) -> None:
        tracker = Tracker(
            state,
            journal,
            on_broken=on_broken,
            durable_clicks=durable_clicks,
            durable_conversions=durable_conversions,
        )
        self._routes = Routes(tracker, readiness=readiness, trusted=trusted)
        self._lane = LanePort(
            tracker,
            cold=self._routes.server,
            trusted=trusted,
            is_on=is_lane_on,
            has_proxy=has_proxy,
            max_connections=max_connections,
        )

    def __call__(self) -> Lane:
        return Lane(self._lane)

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._lane.connections) + len(self._lane.cold.connections)

    async def watch(self) -> None:
        """Expire connections that take too long, for ever."""
        await sweep(self._lane.clock, self._lane.connections)

    async def shutdown(self, patience_s: float) -> None:
        """Answer what was asked, then close; after `patience_s` close all the same."""
        self._lane.end()
        self._routes.server.pre_shutdown()
        try:
            async with asyncio.timeout(patience_s):
                while self._lane.connections:  # noqa: ASYNC110 - once in a worker's life
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self._lane.abort()
        await self._routes.server.shutdown(patience_s)
