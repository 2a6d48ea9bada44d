"""Robyn, one process with one worker: one route that redirects and records nothing."""

import sys

from robyn import Request, Response, Robyn

port = int(sys.argv[1])
sys.argv[1:] = ["--log-level", "WARN"]  # Robyn reads the command line itself
LOCATION = "https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123"
application = Robyn(__file__)
application.config.processes = application.config.workers = 1


@application.get("/aff_c")
async def redirect(request: Request) -> Response:
    """The same answer to everyone."""
    return Response(status_code=302, headers={"Location": LOCATION}, description="")


application.start(host="127.0.0.1", port=port)
