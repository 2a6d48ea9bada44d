"""Clicks and conversions as they happen: server-sent events."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from edge.admin.api.operation import EVERYBODY, Call, Operation
from edge.admin.api.problems import Problem
from edge.admin.live import Interest, Listener, LiveFeed, Since, TooManyListeners, feed_of

HEARTBEAT_S = 15.0
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
    )
    return await send_events(call.request, feed_of(call.backend), interest)


async def send_events(
    request: web.Request, feed: LiveFeed, interest: Interest, headers: Mapping[str, str] = _HEADERS
) -> web.StreamResponse:
    """The events of that interest as an answer to the request; `Last-Event-ID` says where the client was."""
    since = Since.parse(request.headers.get("Last-Event-ID", ""))
    try:
        async with feed.listen(interest, since) as listener:
            response = web.StreamResponse(headers=dict(headers))
            await response.prepare(request)
            await response.write(b": listening\n\n")
            try:
                await _pass_on(listener, response)
            except ConnectionResetError:  # the client is gone, and this is how one learns of it
                pass
            return response
    except TooManyListeners as error:
        raise Problem(429, "too many listen already", headers={"Retry-After": "10"}) from error


async def _pass_on(listener: Listener, response: web.StreamResponse) -> None:
    while True:
        try:
            event = await listener.next(HEARTBEAT_S)
        except TimeoutError:
            await response.write(b": still here\n\n")
            continue
        if event is None:
            return
        if listener.is_lagging:
            await response.write(b"event: lagged\ndata: {}\n\n")
            return
        data = _json.encode(listener.interest.seen(event))
        await response.write(b"id: %s\nevent: %s\ndata: %s\n\n" % (event.mark.encode(), event.kind.encode(), data))


OPERATIONS = (
    Operation(
        "GET", "/events", "events", "Clicks and conversions as they are stored, as server-sent events", stream, EVERYBODY,
        query_type=LiveQuery, media=(_MEDIA,),
    ),
)  # fmt: skip
