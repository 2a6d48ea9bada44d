"""The way to a database, which a test can shut."""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from tests.node import free_port

CHUNK_BYTES = 1 << 16


class Gate:
    """A TCP port in front of a database, which can be shut: connections are cut, and new ones are refused."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        """The database's own URL."""
        parts = urlsplit(behind)
        place = parse_qs(parts.query)
        self._socket = f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}"
        self._port = free_port()
        self.url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{self._port}{parts.path}"
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let connections through."""
        if self._server is None:
            self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)

    async def shut(self) -> None:
        """The database is away from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for stream in list(self._streams):
            stream.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket)
            self._streams |= {writer, inner_writer}
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
            self._streams -= {writer, inner_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
