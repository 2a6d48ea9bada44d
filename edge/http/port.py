"""The public port of one worker: the lane in front, aiohttp behind it, one tracker for both."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

from edge.http.deadlines import HEAD_S, sweep
from edge.http.handshakes import Handshakes
from edge.http.known_blocks import KnownBlocks
from edge.http.lane import Lane, LanePort
from edge.http.places import Places
from edge.http.proxied_tls import ProxiedTls
from edge.http.routes import Routes
from edge.http.tracker import Tracker
from edge.tracking.state import EdgeState
from storage.journal.commit import GroupCommit

LEAVE_S = 2.0
"""How long a kept connection may wait with its next request, the last, before it is closed."""
LINGER_S = 5.0
"""How long new connections are still taken because of requests that are not whole yet."""
FRESH_S = 0.5
"""A client that connects sends its request within this; one that only connects is not waited for."""
LOOK_S = 0.01
HANDSHAKE_S: float = HEAD_S
"""How long a TLS handshake may take."""
BACKLOG = 4096


class PublicPort:
    """A factory of connections. `readiness` gives the status and text of `/readyz`.

    `durable_clicks`, `durable_conversions`: what their answers wait for, as `GroupCommit.append` has it.
    """

    def __init__(
        self,
        state: EdgeState,
        journal: GroupCommit,
        *,
        readiness: Callable[[], tuple[int, str]],
        on_broken: Callable[[BaseException], None],
        trusted: tuple[IPv4Network | IPv6Network, ...],
        durable_clicks: int,
        durable_conversions: int,
        is_lane_on: bool = True,
        has_proxy: bool = False,
        max_connections: int,
        client_connections: int = 0,
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
            places=Places(max_connections, client_connections, trusted),
        )
        self._handshakes: set[asyncio.Task[None]] = set()

    def __call__(self) -> Lane:
        return Lane(self._lane)

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None) -> asyncio.Server | Handshakes:
        """Take the connections of a socket; a handshake has a deadline too."""
        loop, places, turn_away = asyncio.get_running_loop(), self._lane.places, self._lane.tracker.turn_away
        if not tls:
            return await loop.create_server(self, sock=sock, backlog=BACKLOG)
        if self._lane.has_proxy:
            return await loop.create_server(
                lambda: ProxiedTls(self, tls, self._handshakes, places=places, turn_away=turn_away),
                sock=sock,
                backlog=BACKLOG,
            )
        sock.listen(BACKLOG)
        return Handshakes(
            sock,
            self,
            tls,
            places=places,
            turn_away=turn_away,
            patience_s=HANDSHAKE_S,
            tasks=self._handshakes,
        )

    @property
    def connection_count(self) -> int:
        """Connections open now."""
        return len(self._lane.places)

    async def watch(self) -> None:
        """Expire connections that take too long, for ever."""
        await sweep(self._lane.clock, self._lane.connections)

    async def retire(self, least_s: float) -> None:
        """Keep no connection any more, and return, after `least_s` at the least, when those of before are gone.

        New ones are taken meanwhile, each for one request. What asks nothing for 2 s is closed, what is not through with
        its request after 5 s is left to `shutdown`.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        kept, cold = set(self._lane.connections), set(self._routes.server.connections)
        self._keep_none()
        while (passed_s := loop.time() - began_s) < LINGER_S:
            kept &= self._lane.connections
            cold.intersection_update(self._routes.server.connections)
            if passed_s >= least_s and not kept and not cold:
                return
            if passed_s >= LEAVE_S:
                for connection in kept:
                    connection.end_idle(is_fresh_too=True)
            await asyncio.sleep(LOOK_S)

    async def shutdown(self, patience_s: float, *, least_s: float = 0) -> None:
        """Answer what was asked, then close; after `patience_s` close all the same. The server accepts no more.

        `least_s`: how long a connection may still appear that was accepted before.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._keep_none()
        while (passed_s := loop.time() - began_s) < least_s or self._lane.connections:
            if passed_s >= patience_s:
                for connection in list(self._lane.connections):
                    connection.abort()
                break
            for connection in list(self._lane.connections):
                connection.end_idle(is_fresh_too=passed_s >= FRESH_S)
            await asyncio.sleep(LOOK_S)
        self._routes.server.pre_shutdown()
        await self._routes.server.shutdown(patience_s)

    def _keep_none(self) -> None:
        """From now on each connection's next answer is its last; nothing is closed that has not heard of it."""
        self._lane.is_retiring = True
        self._lane.blocks = KnownBlocks()  # the known ones say which connections are kept
        for connection in self._lane.connections:
            connection.retire()
