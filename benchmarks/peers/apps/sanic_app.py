"""Sanic, one process (uvloop, httptools): one route that redirects and records nothing."""

import sys

from sanic import Request, Sanic
from sanic.response import HTTPResponse

LOCATION = "https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123"
application = Sanic("peer")


@application.get("/aff_c")
async def redirect(request: Request) -> HTTPResponse:
    """The same answer to everyone."""
    return HTTPResponse(status=302, headers={"Location": LOCATION})


application.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False, motd=False)
