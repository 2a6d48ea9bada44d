"""A client of a worker's public port, byte by byte."""

import asyncio
from typing import NamedTuple

REPLY_S = 20.0


class Reply(NamedTuple):
    """One response as it stood on the wire; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str:
        """The header's value; "" without one, AssertionError for more than one."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, self.headers
        return values[0] if values else ""


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        """Put `data` on the wire."""
        self._writer.write(data)

    def get(self, target: str, *headers: str, method: str = "GET") -> None:
        """Ask for `target`, which is sent as it is."""
        head = [f"{method} {target} HTTP/1.1", "Host: edge.example", *headers, "", ""]
        self.send("\r\n".join(head).encode("utf-8", "surrogateescape"))

    def post(self, target: str, body: bytes, content_type: str, *headers: str) -> None:
        """Send `body` to `target`."""
        self.get(target, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers, method="POST")
        self.send(body)

    async def reply(self, *, has_body: bool = True) -> Reply:
        """The next response; EOFError when the connection ends instead."""
        async with asyncio.timeout(REPLY_S):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise EOFError from error
            status_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
            length = int(dict(headers).get("content-length", "0")) if has_body else 0
            return Reply(int(status_line.split(" ")[1]), headers, await self._reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Whether the other side ends the connection and says no more."""
        async with asyncio.timeout(REPLY_S):
            try:
                return await self._reader.read(1) == b""
            except ConnectionError:
                return True

    async def is_silent(self, for_s: float) -> bool:
        """Whether nothing arrives for that long."""
        try:
            await asyncio.wait_for(self._reader.read(1), for_s)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Go away."""
        self._writer.close()
