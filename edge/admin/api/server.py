"""Requests to the API: who asks, what is asked, is it allowed; then the operation, and its answer as JSON."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from edge.admin.api import decoding
from edge.admin.api.docs_page import render_docs
from edge.admin.api.idempotency import HEADER, answer_once
from edge.admin.api.middleware import ALLOWANCE, add_headers, say_problems
from edge.admin.api.openapi import PREFIX, describe
from edge.admin.api.operation import Call, Caller, Operation, Reply
from edge.admin.api.problems import Problem
from edge.admin.api.server_address import asked_from as address_of
from edge.admin.api.written import perform
from edge.admin.authentication import TooManyFailures, Windows
from edge.admin.backend import Backend
from edge.admin.live import feed_of

_json = msgspec.json.Encoder(decimal_format="number")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="clickedge"'}
_DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_api(backend: Backend, operations: Sequence[Operation]) -> web.Application:
    """The application below /api."""
    app = web.Application(middlewares=[say_problems], client_max_size=decoding.MAX_BODY_BYTES)
    app.on_shutdown.append(lambda _: feed_of(backend).close())
    app.on_response_prepare.append(add_headers)
    page = describe(operations)
    app.router.add_get("/openapi.json", _fixed(msgspec.json.encode(page), "application/json"))
    app.router.add_get("/docs", _fixed(render_docs(page), "text/html"))
    limits = Windows(backend.settings.api_rate_limit)
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(PREFIX.removeprefix("/api") + operation.path, []).append(operation)
    # What stands in a path literally goes before what any word fits.
    for path in sorted(by_path, key=lambda path: path.replace("{", "\uffff")):
        _add(app, path, by_path[path], backend, limits)
    return app


def encode(value: Any) -> bytes:
    """A value as JSON; money is a number, written as exactly as it is kept."""
    return _json.encode(value)


async def authenticate(backend: Backend, token: str, address: str = "") -> Caller | None:
    """Whose key that is; None if it is nobody's, or no longer one. DatabaseAway, TooManyFailures (of that address)."""
    key = await backend.keys.find(backend.connection, token, address)
    return Caller(key.key_id, key.name, key.scope, key.advertiser_id, key.aff_id) if key else None


def _add(app: web.Application, path: str, operations: list[Operation], backend: Backend, limits: Windows) -> None:
    """One path's operations, and HEAD and OPTIONS, which follow from them."""
    resource = app.router.add_resource(path)
    methods: list[str] = []
    for one in operations:
        answer = _handler(one, backend, limits)
        resource.add_route(one.method, answer)
        methods.append(one.method)
        if one.method == "GET" and not one.media:
            resource.add_route("HEAD", answer)
            methods.append("HEAD")
    allow = {"Allow": ", ".join(sorted([*methods, "OPTIONS"]))}

    async def options(_: web.Request) -> web.Response:
        return web.Response(status=204, headers=allow)

    resource.add_route("OPTIONS", options)


def _fixed(page: bytes, content_type: str) -> Answer:
    headers = {"Content-Security-Policy": _DOCS_POLICY} if content_type == "text/html" else {}

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type=content_type, charset="utf-8", headers=headers)

    return answer


def _handler(operation: Operation, backend: Backend, limits: Windows) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        caller = await _caller_of(backend, request, limits)
        if caller.scope not in operation.scopes:
            raise Problem(403, f"a key of scope {caller.scope} may not do this")
        if operation.needs_match and "If-Match" not in request.headers:
            raise Problem(428, "If-Match is required: send the ETag of the version that you saw")
        path = decoding.decode_fields(operation.path_type, request.match_info) if operation.path_type else None
        query = None
        if not operation.takes_any_query:
            query = decoding.decode_fields(operation.query_type or NoParameters, request.query)
        body = await decoding.decode_body(operation, request)
        call = Call(caller, backend, request, path, query, body)

        async def respond() -> web.StreamResponse:
            return await perform(operation, call, lambda answered: _response(operation, answered))

        is_once = request.method == "POST" and HEADER in request.headers
        return await (answer_once(operation, call, respond) if is_once else respond())

    return answer


class NoParameters(msgspec.Struct):
    """The query of an operation that takes none."""


def _response(operation: Operation, answered: Any) -> web.StreamResponse:
    if isinstance(answered, web.StreamResponse):
        return answered
    reply = answered if isinstance(answered, Reply) else Reply(answered, operation.status)
    if reply.value is None:
        return web.Response(status=reply.status, headers=reply.headers)
    return web.Response(
        status=reply.status, body=encode(reply.value), content_type="application/json", headers=reply.headers
    )


async def _caller_of(backend: Backend, request: web.Request, limits: Windows) -> Caller:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        is_bearer = kind.lower() == "bearer"
        caller = await authenticate(backend, token.strip(), address_of(backend, request)) if is_bearer else None
    except TooManyFailures as error:
        raise Problem(429, str(error), headers={"Retry-After": str(error.retry_after_s)}) from error
    if caller is None:
        raise Problem(401, "a valid API key is needed: Authorization: Bearer …", headers=_CHALLENGE)
    allowance = request[ALLOWANCE] = limits.take(caller.key_id)
    if allowance.is_over:
        raise Problem(
            429,
            f"this key may send {allowance.limit} requests a minute",
            headers={"Retry-After": str(allowance.reset_s)},
        )
    return caller
