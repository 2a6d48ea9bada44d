"""TLS behind a balancer that passes connections through: its PROXY header stands in clear in front of the handshake.

The header is read to its last byte and no further: what follows is the handshake's. The connection beneath the TLS is
then told it as its own first bytes, as one without TLS is.
"""

import asyncio
import ssl
from collections.abc import Callable

from edge.http.deadlines import HEAD_S
from edge.http.handshakes import TurnAway
from edge.http.places import Place, Places
from edge.http.proxy_protocol import HEADER_BYTES, read_proxy_header


class ProxiedTls(asyncio.BufferedProtocol):
    """A connection until its handshake is done; `make` gives the protocol that goes on with it.

    `tasks` holds the handshakes that are under way.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext,
        tasks: set[asyncio.Task[None]],
        *,
        places: Places,
        turn_away: TurnAway,
    ) -> None:
        self._make = make
        self._tls = tls
        self._tasks = tasks
        self._places = places
        self._turn_away = turn_away
        self._header = bytearray(HEADER_BYTES)
        self._size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(HEAD_S, transport.abort)
        self._place: Place | None = Place(self._places)  # among all: whose it is, is still to be said
        if not self._place.is_granted:
            self._turn_away(transport.abort, is_full=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._leave()

    def _leave(self) -> None:
        if self._place:
            self._place.leave()
            self._place = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what is missing of the header."""
        return memoryview(self._header)[self._size :]

    def buffer_updated(self, nbytes: int) -> None:
        self._size += nbytes
        if self._size < len(self._header):
            return
        try:
            found = read_proxy_header(bytes(self._header))
        except ValueError:
            self._transport.close()
            return
        if found is None:  # the addresses are still to come
            self._header = self._header + bytes(int.from_bytes(self._header[14:16], "big"))
            return
        self._deadline.cancel()
        self._transport.pause_reading()
        task = self._loop.create_task(self._shake_hands())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self) -> None:
        early = _Early()
        try:
            transport = await self._loop.start_tls(
                self._transport, early, self._tls, server_side=True, ssl_handshake_timeout=HEAD_S
            )
        except OSError:  # no handshake, none in time, or the client went away: it has been closed
            return
        finally:
            self._leave()
        if transport is None or early.is_lost:
            return
        protocol = self._make()
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.data_received(bytes(self._header) + early.data)


class _Early(asyncio.Protocol):
    """Keeps what a client says right behind its handshake."""

    def __init__(self) -> None:
        self.data = b""
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
