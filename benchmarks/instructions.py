"""How many instructions a click takes in process, and how many a bare aiohttp redirect: counted by valgrind's callgrind.

Exact on any machine, however busy it or its host is. Each count is the difference of two runs, so that starting Python is
not in it. Run as a module it is the process that is counted: `python -m benchmarks.instructions KIND COUNT`.
"""

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from benchmarks.in_process import CONNECTIONS, InProcessWorker, load_catalog

CATALOG = Path(__file__).parent.parent / "examples" / "catalog.toml"
FEW, MANY = 2 * CONNECTIONS, 32 * CONNECTIONS
_COLLECTED = re.compile(r"Collected : (\d+)")


def can_count() -> bool:
    """Whether valgrind is here."""
    return shutil.which("valgrind") is not None


def count_instructions(kinds: tuple[str, ...]) -> dict[str, float]:
    """Instructions of one request of each kind: `same` and `varied` clicks, `bare`. CalledProcessError: it did not run."""
    jobs = [(kind, count) for kind in kinds for count in (FEW, MANY)]
    with ThreadPoolExecutor(2) as pool:
        totals = dict(zip(jobs, pool.map(lambda job: _count(*job), jobs), strict=True))
    return {kind: (totals[kind, MANY] - totals[kind, FEW]) / (MANY - FEW) for kind in kinds}


def _count(kind: str, count: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-m", "benchmarks.instructions", kind, str(count)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = _COLLECTED.search(done.stderr)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {done.stderr[-300:]}")
    return int(found[1])


def _request(kind: str, number: int) -> bytes:
    """`varied`: another parameter, agent and referrer each time, as visitors have."""
    n = number if kind == "varied" else 0
    return (
        f"GET /aff_c?offer_id=17&aff_id={2 + n % 2}&aff_sub=abc{n}&source=news{n % 97} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
        f"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/12{n}.0.0.0 Safari/537.36\r\n"
        "Accept: text/html,application/xhtml+xml\r\nAccept-Language: en-US,en;q=0.9\r\nAccept-Encoding: gzip, deflate\r\n"
        f"Referer: https://deal.blog/holiday/{n}\r\n\r\n"
    ).encode()


async def _click(kind: str, count: int) -> None:
    requests = [_request(kind, number) for number in range(count)]
    catalog = load_catalog(CATALOG.read_text(encoding="utf-8"))
    async with InProcessWorker(catalog, session_capacity=200_000, directory="/var/tmp") as worker:
        gc.collect()
        gc.freeze()
        await worker.serve(requests)


class _Transport(asyncio.Transport):
    """Of a connection to nobody; aiohttp wants more of it than the lane does."""

    answers = 0

    def write(self, data: Any) -> None:
        _Transport.answers += data.startswith(b"HTTP/1.1 302 ")

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False


async def _redirect(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "https://shop.example.com/landing?clickid=0123456789abcdef"})


async def _ask_bare(count: int) -> None:
    application = web.Application()
    application.router.add_get("/aff_c", _redirect)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    server = runner.server
    if server is None:
        raise RuntimeError("aiohttp made no server")
    connections = [server() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(_Transport())
    await asyncio.sleep(0)
    gc.collect()
    gc.freeze()
    for number in range(count):
        connections[number % CONNECTIONS].data_received(_request("same", 0))
        if number % CONNECTIONS == CONNECTIONS - 1:
            for _ in range(4):
                await asyncio.sleep(0)
    if _Transport.answers != count:
        raise RuntimeError(f"{count} requests, {_Transport.answers} answers")


def main() -> None:
    """The counted process."""
    kind, count = sys.argv[1], int(sys.argv[2])
    uvloop.run(_ask_bare(count) if kind == "bare" else _click(kind, count))


if __name__ == "__main__":
    main()
