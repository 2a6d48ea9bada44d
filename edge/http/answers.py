"""Answers as aiohttp sends them; the only place that writes a Location."""

from aiohttp import hdrs, web

from edge.tracking.request import Answer


def to_response(answer: Answer) -> web.Response:
    """`answer` on the wire. Its location is compiled by us: printable ASCII, sent byte for byte."""
    response = web.Response(status=answer.status, body=answer.body)
    headers = response.headers
    headers[hdrs.CONTENT_TYPE] = answer.content_type
    headers[hdrs.CACHE_CONTROL] = "no-store"
    headers[hdrs.SERVER] = "clickedge"
    if answer.location:
        headers[hdrs.LOCATION] = answer.location
    for cookie in answer.cookies:
        headers.add(hdrs.SET_COOKIE, cookie)
    if answer.retry_after_s:
        headers[hdrs.RETRY_AFTER] = str(answer.retry_after_s)
    if answer.allow:
        headers[hdrs.ALLOW] = answer.allow
    return response
