"""Answers as aiohttp sends them; the only place that writes a Location."""

import time
from email.utils import formatdate
from http import HTTPStatus

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
    if answer.cookie:
        headers[hdrs.SET_COOKIE] = answer.cookie
    if answer.retry_after_s:
        headers[hdrs.RETRY_AFTER] = str(answer.retry_after_s)
    if answer.allow:
        headers[hdrs.ALLOW] = answer.allow
    for name, value in answer.extra:
        headers[name] = value
    return response


_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Dated:
    """Answers as bytes, with a date that is worked out once a second."""

    def __init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Take the time anew."""
        date = formatdate(time.time(), usegmt=True)
        self._tail = f"Cache-Control: no-store\r\nServer: clickedge\r\nDate: {date}\r\n"
        self._redirect = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n{self._tail}Location: "

    def to_bytes(self, answer: Answer, is_head: bool, is_last: bool) -> bytes:
        """The whole answer on the wire; `is_last`: the connection closes after it."""
        if answer.cookie and answer.status == 302 and not is_last:
            return f"{self._redirect}{answer.location}\r\nSet-Cookie: {answer.cookie}\r\n\r\n".encode("ascii")
        lines = f"HTTP/1.1 {_REASONS[answer.status]}\r\nContent-Length: {len(answer.body)}\r\n{self._tail}"
        if answer.location:
            lines += f"Location: {answer.location}\r\n"
        if answer.cookie:
            lines += f"Set-Cookie: {answer.cookie}\r\n"
        if answer.body:
            lines += f"Content-Type: {answer.content_type}\r\n"
        if answer.retry_after_s:
            lines += f"Retry-After: {answer.retry_after_s}\r\n"
        if answer.allow:
            lines += f"Allow: {answer.allow}\r\n"
        for name, value in answer.extra:
            lines += f"{name}: {value}\r\n"
        if is_last:
            lines += "Connection: close\r\n"
        head = (lines + "\r\n").encode("ascii")
        return head if is_head else head + answer.body
