"""Real requests over real sockets, one at a time or at a pace.

The client never repeats a request by itself (aiohttp's does), so that a row that is there twice is the product's doing.
"""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

Say = Callable[[str], None]
"""Shows a line of figures although the test passes."""

REQUEST_TIMEOUT_S = 30.0
_LOCATION = re.compile(r"https://shop\.example\.com/o(\d+)(?:p\d+)?\?clickid=([0-9a-f]{32})&m=([a-z0-9]+)")


class Reply(NamedTuple):
    """An answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection at a time, kept open between requests unless told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._reader = asyncio.StreamReader()

    async def ask(self, target: str, *, method: str = "GET", headers: str = "") -> Reply:
        """The answer; OSError, EOFError or TimeoutError when there is none, and the connection is given up."""
        try:
            return await asyncio.wait_for(self._ask(target, method, headers), REQUEST_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    async def _ask(self, target: str, method: str, headers: str) -> Reply:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"{method} {target} HTTP/1.1\r\nHost: edge.test\r\n{headers}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        length = 0 if method == "HEAD" else int(fields.get("Content-Length", "0"))
        body = await self._reader.readexactly(length) if length else b""
        if fields.get("Connection") == "close":
            self.close()
        return Reply(int(head[0].split(" ")[1]), fields, body)

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None


MakeClient = Callable[[int], Client]


class Outcome(NamedTuple):
    """A paced load's result: latencies in seconds, sorted; marks with the ids in their Locations; the rest."""

    latencies: list[float]
    clicks: dict[str, str]
    others: list[str]

    def percentile_ms(self, share: float) -> float:
        """The latency below which that share lies."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


async def paced_clicks(port: int, *, per_s: int, seconds: float, prefix: str, clients: int = 32) -> Outcome:
    """Clicks at an even pace, over kept connections, however long the answers take; late ones are made up for."""
    loop = asyncio.get_running_loop()
    outcome = Outcome([], {}, [])
    began_s = loop.time()
    numbers = iter(range(int(per_s * seconds)))

    async def visit() -> None:
        client = Client(port)
        for number in numbers:
            due_s = began_s + number / per_s
            if (early_s := due_s - loop.time()) > 0:
                await asyncio.sleep(early_s)
            asked_s = time.perf_counter()  # uvloop's own clock has whole milliseconds
            mark = f"{prefix}{number}"
            try:
                reply = await client.ask(f"/aff_c?offer_id=1&aff_id=1&aff_sub={mark}")
            except (OSError, EOFError, TimeoutError) as error:
                outcome.others.append(f"{mark}: {error!r}")
                continue
            outcome.latencies.append(time.perf_counter() - asked_s)
            found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
            if reply.status == 302 and found and found[3] == mark:
                outcome.clicks[mark] = found[2]
            else:
                outcome.others.append(f"{mark}: {reply.status}")
        client.close()

    await asyncio.gather(*(visit() for _ in range(clients)))
    outcome.latencies.sort()
    return outcome


def id_in(reply: Reply) -> str:
    """The click id that a redirect carries."""
    found = _LOCATION.fullmatch(reply.headers.get("Location", ""))
    assert found, reply
    return found[2]
