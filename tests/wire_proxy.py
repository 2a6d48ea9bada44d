"""A TCP proxy before Postgres that cuts the connection at a chosen message of the client's.

It knows of the protocol what it needs: after the start-up message everything is a type byte, a length and a body.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

Portion = Literal["nothing", "half", "all"]
ANSWERED = frozenset(b"QS")
"""Messages that the server is sure to answer: a simple query, a sync. (CopyDone is answered too, but by an error only.)"""
REPLY_S = 5.0


class Cut(NamedTuple):
    """Where to cut: at the `skip`-th message after the first that contains `pattern` (0: at that one itself).

    A bind contains the text of its prepared statement, as far as this is concerned.

    Of the message itself nothing is passed on, half of it, or all: then the cut comes once the server has answered, so
    that the deed is done and its reply lost.
    """

    pattern: bytes
    skip: int = 0
    portion: Portion = "nothing"


class WireProxy:
    """One listening port before one server."""

    def __init__(self, url: str) -> None:
        """`url`: of the server, with its socket's directory as `host`."""
        self._url = urlsplit(url)
        place = parse_qs(self._url.query)
        self._socket = f"{place['host'][0]}/.s.PGSQL.{place.get('port', ['5432'])[0]}"
        self._cut: Cut | None = None
        self._countdown = -1
        self._was_cut = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0

    @property
    def url(self) -> str:
        """Where to connect instead."""
        user = self._url.netloc.rpartition("@")[0]
        return f"postgresql://{user}@127.0.0.1:{self.port}{self._url.path}?sslmode=disable"

    def arm(self, cut: Cut) -> None:
        """Cut once, at the next chance."""
        self._cut, self._countdown = cut, -1
        self._was_cut.clear()

    async def wait_cut(self, timeout_s: float = 20.0) -> None:
        """Until the armed cut has been made."""
        async with asyncio.timeout(timeout_s):
            await self._was_cut.wait()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["WireProxy"]:
        """Accept connections; all end with it."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
            link = _Link(self, reader, writer, up_reader, up_writer)
            try:
                await link.run()
            finally:
                for end in (writer, up_writer):
                    end.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Cancelled by `listening` only, at its end; a callback of the server's must not raise that.
            writer.transport.abort()
        finally:
            self._links.discard(task)

    def portion_of(self, message: bytes) -> Portion | None:
        """How much of this message passes before the cut; None: no cut here."""
        if self._cut is None:
            return None
        if self._countdown < 0:
            if self._cut.pattern not in message:
                return None
            self._countdown = self._cut.skip
        if self._countdown > 0:
            self._countdown -= 1
            return None
        portion, self._cut = self._cut.portion, None
        return portion

    def note_cut(self) -> None:
        """The connection is cut."""
        self.cuts += 1
        self._was_cut.set()


class _Link:
    """One client's connection and its counterpart to the server."""

    def __init__(
        self,
        proxy: WireProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = up_reader, up_writer
        self._is_deaf = False
        self._answered = asyncio.Event()
        self._statements: dict[bytes, bytes] = {}

    async def run(self) -> None:
        """Until either end closes, or the cut."""
        back = asyncio.create_task(self._pass_back())
        try:
            await self._pass_on()
        finally:
            back.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await back

    async def _pass_on(self) -> None:
        size = await self._reader.readexactly(4)
        self._up_writer.write(size + await self._reader.readexactly(int.from_bytes(size, "big") - 4))
        while True:
            head = await self._reader.readexactly(5)
            message = head + await self._reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            portion = self._proxy.portion_of(message + self._statement_of(message))
            if portion is not None:
                await self._cut(message, portion)
                return
            self._up_writer.write(message)
            await self._up_writer.drain()

    def _statement_of(self, message: bytes) -> bytes:
        """The statement that a bind is of; a parse's is remembered."""
        if message[:1] == b"P":
            name, query, _ = message[5:].split(b"\0", 2)
            self._statements[name] = query
        elif message[:1] == b"B":
            _, name, _ = message[5:].split(b"\0", 2)
            return self._statements.get(name, b"")
        return b""

    async def _cut(self, message: bytes, portion: Portion) -> None:
        self._is_deaf = True
        self._answered.clear()
        if portion != "nothing":
            self._up_writer.write(message if portion == "all" else message[: len(message) // 2])
            await self._up_writer.drain()
        if portion == "all" and message[0] in ANSWERED:
            async with asyncio.timeout(REPLY_S):
                await self._answered.wait()
        self._proxy.note_cut()

    async def _pass_back(self) -> None:
        while data := await self._up_reader.read(65536):
            if self._is_deaf:
                self._answered.set()
            else:
                self._writer.write(data)
                await self._writer.drain()
        self._writer.transport.abort()
