"""What surrounds every request to the API: its id, the headers of every answer, and faults said as problems."""

import re
import uuid
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from edge.admin.api.problems import Problem
from edge.admin.authentication import WINDOW_S, Allowance
from edge.admin.backend import DatabaseAway
from edge.logs import RateLimited
from storage.errors import StorageError
from storage.postgres.connection import is_bad_value, is_retryable

REQUEST_ID = web.RequestKey("request_id", str)
HAS_BEGUN = web.RequestKey("has_begun", bool)
ALLOWANCE = web.RequestKey("allowance", Allowance)
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_RETRY = {"Retry-After": "2"}
_HIDDEN_FROM_CACHES = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
quietly = RateLimited(structlog.get_logger(), 5.0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal of every answer, streams too, before its head is sent."""
    request[HAS_BEGUN] = True
    response.headers["X-Request-Id"] = request.get(REQUEST_ID, "")
    for name, value in _HIDDEN_FROM_CACHES.items():
        response.headers.setdefault(name, value)
    allowance = request.get(ALLOWANCE)
    if allowance is not None and allowance.limit:
        response.headers["RateLimit-Policy"] = f'"key";q={allowance.limit};w={WINDOW_S}'
        response.headers["RateLimit"] = f'"key";r={allowance.remaining};t={allowance.reset_s}'


@web.middleware
async def say_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and say whatever goes wrong as a problem."""
    given = request.headers.get("X-Request-Id", "")
    request_id = request[REQUEST_ID] = given if _ID.fullmatch(given) else uuid.uuid4().hex
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, headers=kept).response(request_id)
    except Exception as error:
        problem = error if isinstance(error, Problem) else _problem_of(error, request, request_id)
        if not request.get(HAS_BEGUN):
            return problem.response(request_id)
        # Half a stream has been sent: its reader must not take what there is for the whole.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer cannot be finished") from error


def _problem_of(error: Exception, request: web.Request, request_id: str) -> Problem:
    if isinstance(error, DatabaseAway):
        return Problem(503, str(error), headers=_RETRY)
    fields = {"operation": request.path, "request_id": request_id, "error": str(error), "kind": type(error).__name__}
    if is_bad_value(error):
        quietly.warning("api_value_refused", **fields)
        return Problem(422, "a value is out of its range or holds what no text may")
    if is_retryable(error) or (isinstance(error, StorageError) and error.retryable):
        quietly.warning("api_database_failed", **fields)
        return Problem(503, "the database did not do it", headers=_RETRY)
    quietly.error("api_failed", **fields)
    return Problem(500, "this is a fault of ours; the log says more")
