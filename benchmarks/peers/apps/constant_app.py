"""A uvloop protocol that answers whatever comes in with the same bytes: the floor of Python, and the client's own limit."""

import asyncio
import sys

import uvloop

ANSWER = (
    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
    b"Location: https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123\r\n\r\n"
)


class Constant(asyncio.Protocol):
    """Takes each read for one whole request, which is true of a client that waits for its answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())
