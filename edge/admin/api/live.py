"""Clicks and conversions as they happen: server-sent events."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from edge.admin.api.operation import EVERYBODY, Call, Operation
from edge.admin.api.problems import Problem
from edge.admin.backend import DatabaseAway
from edge.admin.live import Happened, Interest, Listener, LiveFeed, Since, TooManyListeners, feed_of

HEARTBEAT_S = 5.0
"""After so long the stream says that it is alive."""
BELIEVED_S = 1.0
"""After so long it asks whether its key still is, before it tells anything more."""
READER_TIMEOUT_S = 30.0
"""A reader that takes nothing for so long is gone."""
_MEDIA = "text/event-stream"
_HEADERS = {"Content-Type": _MEDIA, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_json = msgspec.json.Encoder(decimal_format="number")
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class LiveQuery(msgspec.Struct):
    """Which ones; nothing: all that the key may see."""

    kind: list[Literal["click", "conversion"]] = []
    offer: list[_Id] = []
    partner: list[_Id] = []


async def stream(call: Call) -> web.StreamResponse:
    """Until the client goes, or does not keep up."""
    caller, query = call.caller, call.query
    interest = Interest(
        caller.scope,
        caller.advertiser_id,
        caller.aff_id,
        frozenset(query.kind),
        frozenset(query.offer),
        frozenset(query.partner),
        caller.key_id,
    )

    async def is_allowed() -> bool:
        token = call.request.headers["Authorization"].partition(" ")[2].strip()
        try:
            return await call.backend.keys.find(call.backend.connection, token) is not None
        except DatabaseAway:  # nothing new can be told either
            return True

    return await send_events(call.request, feed_of(call.backend), interest, is_allowed=is_allowed)


async def send_events(
    request: web.Request,
    feed: LiveFeed,
    interest: Interest,
    headers: Mapping[str, str] = _HEADERS,
    *,
    is_allowed: Callable[[], Awaitable[bool]],
) -> web.StreamResponse:
    """The events of that interest as an answer to the request; `Last-Event-ID` says where the client was.

    `is_allowed`: whether whoever listens still may; asked before what is told, at most once a second.
    """
    since = Since.parse(request.headers.get("Last-Event-ID", ""))
    try:
        async with feed.listen(interest, since) as listener:
            response = web.StreamResponse(headers=dict(headers))
            await response.prepare(request)
            await response.write(b": listening\n\n")
            try:
                await _pass_on(listener, response, is_allowed)
            except ConnectionResetError:  # the client is gone, and this is how one learns of it
                pass
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return response
    except TooManyListeners as error:
        raise Problem(429, "too many listen already", headers={"Retry-After": "10"}) from error


async def _pass_on(
    listener: Listener, response: web.StreamResponse, is_allowed: Callable[[], Awaitable[bool]]
) -> None:
    """Until it is over; TimeoutError: nobody reads any more."""
    asked_s = time.monotonic()
    while True:
        event: Happened | None = None
        is_quiet = False
        try:
            event = await listener.next(HEARTBEAT_S)
        except TimeoutError:
            is_quiet = True
        if time.monotonic() - asked_s >= BELIEVED_S:
            if not await is_allowed():
                return
            asked_s = time.monotonic()
        if event is None and not is_quiet:
            return
        async with asyncio.timeout(READER_TIMEOUT_S):
            await response.write(_line(listener, event))
        if event is not None and listener.is_lagging:
            return


def _line(listener: Listener, event: Happened | None) -> bytes:
    if event is None:
        return b": still here\n\n"
    if listener.is_lagging:
        return b"event: lagged\ndata: {}\n\n"
    data = _json.encode(listener.interest.seen(event))
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.mark.encode(), event.kind.encode(), data)


OPERATIONS = (
    Operation(
        "GET", "/events", "events", "Clicks and conversions as they are stored, as server-sent events", stream, EVERYBODY,
        query_type=LiveQuery, media=(_MEDIA,),
    ),
)  # fmt: skip
