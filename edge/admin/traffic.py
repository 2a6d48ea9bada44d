"""What is asked of the admin port: counted by part and kind of answer, and timed until the answer begins."""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from edge.counters import Counters, cell
from edge.metric_families import ADMIN_BUCKETS_US, ADMIN_CODES, ADMIN_PARTS

_BEGAN_NS = web.RequestKey("began_ns", int)
_REQUESTS = {(part, code): cell("edge_admin_requests_total", part, code) for part in ADMIN_PARTS for code in ADMIN_CODES}
_SECONDS = {part: cell("edge_admin_answer_seconds", part) for part in ADMIN_PARTS}
_PROBES = {"/metrics": "metrics", "/livez": "health", "/readyz": "health"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def count_traffic(app: web.Application, counters: Counters) -> None:
    """Count what this application and those below it answer. A stream is counted when it begins."""

    async def count(request: web.Request, response: web.StreamResponse) -> None:
        part = part_of(request.path)
        counters.cells[_REQUESTS[part, code_of(response.status)]] += 1
        began_ns = request.get(_BEGAN_NS)
        if began_ns is not None:
            duration_us = (time.perf_counter_ns() - began_ns) // 1000
            counters.observe(_SECONDS[part], ADMIN_BUCKETS_US, duration_us)

    app.middlewares.append(_note_begin)
    app.on_response_prepare.append(count)


def part_of(path: str) -> str:
    """Which part of the admin port answers at that path."""
    return _PROBES.get(path) or ("api" if path.startswith("/api/") else "console")


def code_of(status: int) -> str:
    """Such as 2xx; what HTTP does not know is 5xx."""
    code = f"{status // 100}xx"
    return code if code in ADMIN_CODES else "5xx"


@web.middleware
async def _note_begin(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[_BEGAN_NS] = time.perf_counter_ns()
    return await handler(request)
