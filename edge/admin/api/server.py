"""Requests to the API: who asks, what is asked, is it allowed; then the operation, and its answer as JSON."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import web

from edge.admin.api import decoding
from edge.admin.api.openapi import PREFIX, describe
from edge.admin.api.operation import Call, Caller, Operation, Reply
from edge.admin.api.problems import Problem
from edge.admin.backend import Backend, DatabaseAway
from edge.logs import RateLimited
from storage.postgres.api_keys import find_by_hash, hash_token

quietly = RateLimited(structlog.get_logger(), 5.0)
_json = msgspec.json.Encoder(decimal_format="number")
_RETRY_S = {"Retry-After": "2"}


def make_api(backend: Backend, operations: Sequence[Operation]) -> web.Application:
    """The application below /api."""
    app = web.Application(middlewares=[_problems], client_max_size=decoding.MAX_BODY_BYTES)
    page = msgspec.json.encode(describe(operations))
    app.router.add_get("/openapi.json", _fixed(page))
    for operation in operations:
        path = PREFIX.removeprefix("/api") + operation.path
        app.router.add_route(operation.method, path, _handler(operation, backend))
    return app


def encode(value: Any) -> bytes:
    """A value as JSON; money is a number, written as exactly as it is kept."""
    return _json.encode(value)


async def authenticate(backend: Backend, token: str) -> Caller | None:
    """Whose key that is; None if it is nobody's, or no longer one. DatabaseAway."""
    async with backend.connection() as conn:
        key = await find_by_hash(conn, hash_token(token))
    if key is None or not key.is_in_force:
        return None
    return Caller(key.key_id, key.name, key.scope, key.advertiser_id, key.aff_id)


def _fixed(page: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="application/json")

    return answer


def _handler(operation: Operation, backend: Backend) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        caller = await _caller_of(backend, request)
        if caller.scope not in operation.scopes:
            raise Problem(403, f"a key of scope {caller.scope} may not do this")
        path = decoding.decode_fields(operation.path_type, request.match_info) if operation.path_type else None
        query = None
        if not operation.takes_any_query:
            query = decoding.decode_fields(operation.query_type or NoParameters, request.query)
        body = await decoding.decode_body(operation, request)
        answered = await operation.handle(Call(caller, backend, request, path, query, body))
        return _response(operation, answered)

    return answer


class NoParameters(msgspec.Struct):
    """The query of an operation that takes none."""


def _response(operation: Operation, answered: Any) -> web.StreamResponse:
    if isinstance(answered, web.StreamResponse):
        return answered
    reply = answered if isinstance(answered, Reply) else Reply(answered, operation.status)
    headers = {"Cache-Control": "no-store", **reply.headers}
    if reply.value is None:
        return web.Response(status=reply.status, headers=headers)
    return web.Response(status=reply.status, body=encode(reply.value), content_type="application/json", headers=headers)


async def _caller_of(backend: Backend, request: web.Request) -> Caller:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    caller = await authenticate(backend, token.strip()) if kind.lower() == "bearer" and token.strip() else None
    if caller is None:
        raise Problem(401, "a valid API key is needed: Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})
    return caller


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Whatever goes wrong, said as a problem."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except DatabaseAway as away:
        return Problem(503, str(away), headers=_RETRY_S).response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, headers=kept).response()
    except Exception as error:
        quietly.error("api_failed", operation=request.path, error=str(error), kind=type(error).__name__)
        return Problem(500, "this is a fault of ours; the log says more").response()
