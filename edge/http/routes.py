"""The public port on aiohttp: bytes in, a tracking request; its answer, bytes out, once its event is journalled."""

import asyncio
import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from edge.counters import HANDLING_BUCKETS_US, KINDS, OUTCOMES, cell
from edge.http.answers import to_response
from edge.http.client_address import client_address, is_https
from edge.tracking.dialects import dispatch
from edge.tracking.parameters import clean_form, parse_query
from edge.tracking.request import UNAVAILABLE, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.errors import StorageError
from storage.journal.commit import GroupCommit

MAX_REQUEST_LINE_BYTES = 8192
MAX_HEADERS = 100
MAX_BODY_BYTES = 64 * 1024
IDLE_S = 75
BAD_REQUEST = text(400, "bad request")
BODY_TOO_LARGE = text(413, "the body may have 65536 bytes")
BAD_BODY = text(400, "the body is neither a form nor a flat JSON object")

_REQUESTS = [[cell("edge_requests_total", kind, outcome) for outcome in OUTCOMES] for kind in KINDS]
_HANDLING = [cell("edge_handling_seconds", kind) for kind in KINDS]
_OUTCOME_INDEX = {outcome: index for index, outcome in enumerate(OUTCOMES)}
_DROPPED = cell("edge_events_dropped_total")


class PublicPort:
    """What one worker answers. `readiness` gives the status and text of `/readyz`."""

    def __init__(
        self,
        state: EdgeState,
        journal: GroupCommit,
        *,
        readiness: Callable[[], tuple[int, str]],
        on_broken: Callable[[BaseException], None],
        trusted: tuple[IPv4Network | IPv6Network, ...],
        durable_clicks: bool,
        durable_conversions: bool,
    ) -> None:
        self._state = state
        self._journal = journal
        self._readiness = readiness
        self._on_broken = on_broken
        self._trusted = trusted
        self._is_durable = {
            Kind.CLICK: durable_clicks,
            Kind.IMPRESSION: durable_clicks,
            Kind.POSTBACK: durable_conversions,
            Kind.PIXEL: durable_conversions,
        }
        self.server = _Server(
            self._answer,
            max_line_size=MAX_REQUEST_LINE_BYTES,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_REQUEST_LINE_BYTES,
            keepalive_timeout=IDLE_S,
            access_log=None,
        )

    async def _answer(self, raw: web.BaseRequest) -> web.Response:
        path, _, query = raw.raw_path.partition("?")
        if path == "/livez":
            return to_response(text(200, "ok"))
        if path == "/readyz":
            return to_response(text(*self._readiness()))
        params = parse_query(query)
        if raw.method == "POST":
            refusal = await _read_body(raw, params)
            if refusal:
                return to_response(refusal)
        return to_response(await self._track(raw, path, params))

    async def _track(self, raw: web.BaseRequest, path: str, params: dict[str, str]) -> Answer:
        started_ns = time.perf_counter_ns()
        forwarded = raw.headers.get("X-Forwarded-For") if self._trusted else None
        peer = raw.remote or ""
        request = Request(
            raw.method,
            path,
            params,
            raw.headers,
            client_address(peer, forwarded, self._trusted),
            is_https(raw.secure, peer, raw.headers.get("X-Forwarded-Proto"), self._trusted),
            time.time_ns() // 1_000_000,
        )
        try:
            handled = dispatch(self._state, request)
        except StorageError as error:  # the id lease: this process may mint no more
            self._on_broken(error)
            return UNAVAILABLE
        self._observe(handled.kind, started_ns)
        if not handled.event:
            return self._count(handled, handled.answer)
        # No await between `dispatch` and `append`: the journal's order is the order of the ids.
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._journal.append(
            handled.event,
            lambda is_written: None if written.done() else written.set_result(is_written),
            is_droppable=handled.is_droppable,
            is_durable=self._is_durable[handled.kind],
        )
        return self._settle(handled, await written)

    def _settle(self, handled: Handled, is_written: bool) -> Answer:
        if is_written:
            return self._count(handled, handled.answer)
        if handled.is_droppable:
            self._state.counters.cells[_DROPPED] += 1
            return self._count(handled, handled.answer)
        self._state.counters.cells[_REQUESTS[handled.kind][_OUTCOME_INDEX["unavailable"]]] += 1
        return UNAVAILABLE

    def _count(self, handled: Handled, answer: Answer) -> Answer:
        self._state.counters.cells[_REQUESTS[handled.kind][_OUTCOME_INDEX[handled.outcome]]] += 1
        return answer

    def _observe(self, kind: Kind, started_ns: int) -> None:
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        self._state.counters.observe(_HANDLING[kind], HANDLING_BUCKETS_US, duration_us)


async def _read_body(raw: web.BaseRequest, params: dict[str, str]) -> Answer | None:
    """Add a form's or a flat JSON object's fields to `params`; the answer if the body is refused."""
    body = b""
    async for chunk in raw.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return BODY_TOO_LARGE
    if not body:
        return None
    try:
        if raw.content_type == "application/json":
            document = orjson.loads(body)
            params.update(clean_form(list(document.items())))
        else:
            params.update(clean_form(list(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=100))))
    except (ValueError, AttributeError):
        return BAD_BODY
    return None


class _Connection(RequestHandler):
    """aiohttp's connection, but a malformed request gets a short answer: nothing echoed, no traceback logged."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        response = to_response(BAD_REQUEST)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
