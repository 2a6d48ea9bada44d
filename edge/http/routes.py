"""The public port on aiohttp: bytes in, a tracking request; its answer, bytes out, once its event is journalled."""

import asyncio
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from edge.http.answers import to_response
from edge.http.client_address import client_address, is_https
from edge.http.limits import BAD_REQUEST, HEAD_TOO_LARGE, MAX_HEAD_BYTES, MAX_HEADERS, MAX_REQUEST_LINE_BYTES
from edge.http.places import Place
from edge.http.script import OFFER_PATH, offer_response, script_response
from edge.http.script import PATH as SCRIPT_PATH
from edge.http.tracker import Tracker
from edge.tracking.headers import read_headers
from edge.tracking.parameters import clean_form, parse_query, split_form, split_parts
from edge.tracking.request import Answer, Request, text

MAX_BODY_BYTES = 64 * 1024
BODY_S = 30.0
IDLE_S = 75
BODY_TOO_LARGE = text(413, "the body may have 65536 bytes")
BODY_TOO_SLOW = text(408, "the body did not arrive in time")
CODED_BODY = text(501, "the only transfer coding known here is chunked")
ENCODED_BODY = text(415, "the body must not be compressed")
BAD_BODY = text(400, "the body is neither a form nor a flat JSON object")

_READABLE: tuple[list[str], ...] = ([], ["chunked"])  # RFC 9112 6.1: any other transfer coding is answered with 501
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_BOUNDARY = re.compile(r"""boundary="?([!-~]{1,70}?)(?:["; ]|$)""", re.IGNORECASE)
_decode_json = msgspec.json.Decoder(dict[str, object], float_hook=str).decode
# A body that stops short, is framed wrongly or whose sender went away: its sender's fault, and no news to anybody.
_CLIENT_FAULTS = (ConnectionError, web.RequestPayloadError, HttpProcessingError)


class Routes:
    """What one worker answers through aiohttp. `readiness` gives the status and text of `/readyz`."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        readiness: Callable[[], tuple[int, str]],
        trusted: tuple[IPv4Network | IPv6Network, ...],
    ) -> None:
        self._tracker = tracker
        self._readiness = readiness
        self._trusted = trusted
        self.server = ConnectionFactory(
            self._answer,
            max_line_size=MAX_REQUEST_LINE_BYTES,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEAD_BYTES,
            keepalive_timeout=IDLE_S,
            access_log=None,
            auto_decompress=False,
        )
        self.server.refuse = tracker.refuse

    async def _answer(self, raw: web.BaseRequest) -> web.Response:
        response = await self._respond(raw)
        response.force_close()  # the lane does not take a connection back
        return response

    async def _respond(self, raw: web.BaseRequest) -> web.Response:
        if _is_head_too_large(raw):
            return to_response(self._tracker.refuse(HEAD_TOO_LARGE))
        if [coding.lower() for coding in raw.headers.getall("Transfer-Encoding", ())] not in _READABLE:
            return to_response(self._tracker.refuse(CODED_BODY))
        target = raw.raw_path
        if not target.startswith("/"):
            target = _ORIGIN.sub("", target, 1)
        path, _, query = target.partition("?")
        if path == "/livez":
            return to_response(text(200, "ok"))
        if path == "/readyz":
            return to_response(text(*self._readiness()))
        if path == SCRIPT_PATH:
            honours_dnt = self._tracker.state.honour_dnt
            return script_response(raw.method, raw.headers.get("If-None-Match"), honours_dnt=honours_dnt)
        if path.startswith(OFFER_PATH):
            return offer_response(raw.method, self._tracker.state.catalog, path.removeprefix(OFFER_PATH))
        params = parse_query(query)
        if raw.method == "POST":
            refusal = await _read_body(raw, params)
            if refusal:
                return to_response(self._tracker.refuse(refusal))
        return to_response(await self._track(raw, path, params))

    async def _track(self, raw: web.BaseRequest, path: str, params: dict[str, str]) -> Answer:
        # All its lines: a proxy may append its own below the one that the client made up.
        forwarded = ",".join(raw.headers.getall("X-Forwarded-For", ())) if self._trusted else None
        connection: _Connection = raw.protocol  # type: ignore[assignment]  # `ConnectionFactory` makes no others
        peer = connection.peer
        handled = self._tracker.handle(
            Request(
                raw.method,
                path,
                params,
                read_headers(raw.headers.items()),
                client_address(peer, forwarded, self._trusted),
                is_https(connection.is_https, peer, raw.headers.get("X-Forwarded-Proto"), self._trusted),
                self._tracker.turn_ms or self._tracker.begin_turn(),
            )
        )
        if not handled.event:
            return self._tracker.settle(handled, True)
        # No await between `handle` and `submit`: the journal's order is the order of the ids.
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._tracker.submit(handled, lambda is_written: None if written.done() else written.set_result(is_written))
        return self._tracker.settle(handled, await written)


def _is_head_too_large(raw: web.BaseRequest) -> bool:
    """aiohttp bounds each line and their number, but takes a request line a little longer and 800 kB in all."""
    line_bytes = len(raw.method) + len(raw.raw_path) + len("  HTTP/1.1")
    head_bytes = line_bytes + 4 + sum(len(name) + len(value) + 4 for name, value in raw.raw_headers)
    return line_bytes > MAX_REQUEST_LINE_BYTES or head_bytes > MAX_HEAD_BYTES


async def _read_body(raw: web.BaseRequest, params: dict[str, str]) -> Answer | None:
    """Add a form's or a flat JSON object's fields to `params`; the answer if the body is refused."""
    if raw.headers.get("Content-Encoding", "identity").lower() != "identity":
        return ENCODED_BODY
    if (raw.content_length or 0) > MAX_BODY_BYTES:
        return BODY_TOO_LARGE
    # A client of HTTP/1.0 would take it for the answer (RFC 9110 10.1.1).
    if raw.version >= HttpVersion11 and raw.headers.get("Expect", "").lower() == "100-continue":
        await raw.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.writer.output_size = 0
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in raw.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return BODY_TOO_LARGE
    except TimeoutError:
        return BODY_TOO_SLOW
    if not body:
        return None
    if raw.content_type == "multipart/form-data":
        found = _BOUNDARY.search(raw.headers["Content-Type"])
        return add_fields(params, body, boundary=found[1] if found else "")
    return add_fields(params, body, is_json=raw.content_type.endswith("json"))


def add_fields(
    params: dict[str, str], body: bytes, *, is_json: bool = False, boundary: str | None = None
) -> Answer | None:
    """`boundary`: of a form that comes in parts. The answer if the body cannot be read."""
    try:
        if is_json:  # with its numbers as they are written: an amount never becomes a float
            fields: list[tuple[str, object]] = list(_decode_json(body).items())
        elif boundary is not None:
            fields = split_parts(body, boundary)
        else:
            fields = split_form(body.decode("utf-8", "replace"))
        params.update(clean_form(fields))  # refuses an integer of more digits than Python writes
    except (ValueError, RecursionError):
        return BAD_BODY
    return None


class _Connection(RequestHandler):
    """aiohttp's connection, but a malformed request gets a short answer: nothing echoed, no traceback logged."""

    peer = ""
    """Whose connection it is, as a balancer in front of it says."""
    is_https = False
    """Whether the client speaks TLS, to us or to that balancer."""
    refuse: Callable[[Answer], Answer]
    """Counts a refusal."""
    place: Place | None = None
    """What it leaves when it ends."""

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.place:
            self.place.leave()
            self.place = None
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client says no more: it gets its answer if that was a whole request. (TLS knows no half of an end.)"""
        try:
            self._parser.feed_eof()  # type: ignore[union-attr]
        except HttpProcessingError:
            return False
        return self.ssl_context is None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500 and not isinstance(exc, _CLIENT_FAULTS):
            return super().handle_error(request, status, exc, message)
        response = to_response(self.refuse(BAD_REQUEST))
        response.force_close()
        return response


class ConnectionFactory(web.Server):
    """Makes aiohttp's connections."""

    refuse: Callable[[Answer], Answer]

    def __call__(self) -> _Connection:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.refuse = self.refuse
        return connection
