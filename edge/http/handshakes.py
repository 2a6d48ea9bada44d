"""TLS handshakes of the public port: each has its connection's place from the moment in which it is accepted.

A loop's own server tells of a connection only when its handshake is done. Until then it would be nobody's: one client could
open as many as the process has descriptors, ten seconds each.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from edge.http.places import Place, Places

ACCEPTS = 100
"""Connections taken in one turn of the loop."""
PAUSE_S = 1.0
"""How long none is taken once there was no descriptor for one."""


class TurnAway(Protocol):
    """Closes a connection that there is no place for, or none for its client, and counts it."""

    def __call__(self, close: Callable[[], None], /, *, is_full: bool) -> None: ...


class Handshakes:
    """Listens at `sock`; `make` gives the protocol of each connection that has shaken hands.

    `turn_away` is told of each connection that there is no place for. `tasks` holds the handshakes that are under way.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext,
        *,
        places: Places,
        turn_away: TurnAway,
        patience_s: float,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self.sockets = (sock,)
        self._sock = sock
        self._make = make
        self._tls = tls
        self._places = places
        self._turn_away = turn_away
        self._patience_s = patience_s
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor, no memory
                self._loop.remove_reader(self._sock)
                self._loop.call_later(PAUSE_S, self._listen)
                return
            self._take(connection, address[0])

    def _take(self, connection: socket.socket, address: str) -> None:
        place = Place(self._places)
        is_full = not place.is_granted
        if is_full or not place.name(address):
            self._turn_away(connection.close, is_full=is_full)
            place.leave()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._shake_hands(connection, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, connection: socket.socket, place: Place) -> None:
        shaken = _Shaken(self._make, place)
        try:
            await self._loop.connect_accepted_socket(
                lambda: shaken, connection, ssl=self._tls, ssl_handshake_timeout=self._patience_s
            )
        except OSError:  # no handshake, none in time, or the client went away: it has been closed
            pass
        finally:
            shaken.leave()


class _Shaken(asyncio.Protocol):
    """Gives the place back for the connection to take, which is counted as the others are."""

    def __init__(self, make: Callable[[], asyncio.Protocol], place: Place) -> None:
        self._make = make
        self._place: Place | None = place

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.leave()
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def leave(self) -> None:
        """Once."""
        if self._place:
            self._place.leave()
            self._place = None
