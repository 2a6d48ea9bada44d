"""A bare aiohttp application on uvloop: one route that redirects and records nothing."""

import sys

import uvloop
from aiohttp import web

LOCATION = "https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123"


async def redirect(request: web.Request) -> web.Response:
    """The same answer to everyone."""
    return web.Response(status=302, headers={"Location": LOCATION})


application = web.Application()
application.router.add_get("/aff_c", redirect)
web.run_app(
    application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=uvloop.new_event_loop()
)
