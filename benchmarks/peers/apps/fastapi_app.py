"""FastAPI on uvicorn (uvloop, httptools): one route that redirects and records nothing."""

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

LOCATION = "https://shop.example.com/landing?clickid=01a2004f81c070008000369c4b260418&p=2&s=abc123"
application = FastAPI()


@application.get("/aff_c")
async def redirect() -> Response:
    """The same answer to everyone."""
    return Response(status_code=302, headers={"Location": LOCATION})


uvicorn.run(
    application, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, workers=1,
    log_level="warning",
)  # fmt: skip
