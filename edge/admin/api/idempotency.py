"""`Idempotency-Key`: a POST sent twice is done once, and answered twice alike.

The request runs inside one transaction together with the answer that is kept. A request that is refused, or that dies
half-way, leaves nothing, so that it may be sent again with the same key.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from edge.admin.api.operation import Call, Operation
from edge.admin.api.problems import Problem, bad_fields
from storage.postgres.idempotent_answers import KeptAnswer, keep_answer, load_answer, lock_request

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_ALLOWED = re.compile(r"[!-~]{1,255}")
_NOT_KEPT = {"Content-Length", "Content-Type", "Date", "Server"}


async def answer_once(
    operation: Operation, call: Call, respond: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What `respond` answers, or what it answered to the same request before. Problem 409, 422."""
    idempotency_key = call.request.headers[HEADER]
    if not operation.is_repeatable:
        raise bad_fields([(HEADER, "this operation takes none")])
    if not _ALLOWED.fullmatch(idempotency_key):
        raise bad_fields([(HEADER, "allowed: 1 to 255 printable ASCII characters without spaces")])
    request_hash = await _hash(call.request)
    key_id = call.caller.key_id
    async with call.backend.transaction() as conn:
        if not await lock_request(conn, key_id, idempotency_key):
            raise Problem(409, "the same request is under way", headers={"Retry-After": "1"})
        kept = await load_answer(conn, key_id, idempotency_key)
        if kept is not None:
            return _replay(kept, request_hash)
        response = await respond()
        if isinstance(response, web.Response):
            await keep_answer(conn, key_id, idempotency_key, _kept(response, request_hash, operation))
        return response


async def _hash(request: web.Request) -> bytes:
    text = f"{request.method} {request.path_qs}\n".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text + await request.read()).digest()


def _replay(kept: KeptAnswer, request_hash: bytes) -> web.Response:
    if kept.request_hash != request_hash:
        raise bad_fields([(HEADER, "was used for another request")])
    headers = {**kept.headers, REPLAYED: "true"}
    return web.Response(status=kept.status, body=kept.body, content_type="application/json", headers=headers)


def _kept(response: web.Response, request_hash: bytes, operation: Operation) -> KeptAnswer:
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {str(name): value for name, value in response.headers.items() if name not in _NOT_KEPT}
    return KeptAnswer(request_hash, response.status, headers, _without(body, operation.secrets))


def _without(body: bytes, names: tuple[str, ...]) -> bytes:
    if not names:
        return body
    value: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    return msgspec.json.encode({name: one for name, one in value.items() if name not in names})
