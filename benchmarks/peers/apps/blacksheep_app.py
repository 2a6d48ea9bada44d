"""BlackSheep on uvicorn (uvloop, httptools): one route that redirects and records nothing."""

import sys

import uvicorn
from blacksheep import Application, Request, Response

LOCATION = b"https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123"
application = Application()


@application.router.get("/aff_c")
async def redirect(request: Request) -> Response:
    """The same answer to everyone."""
    return Response(302, [(b"Location", LOCATION)])


uvicorn.run(
    application, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, workers=1,
    log_level="warning",
)  # fmt: skip
