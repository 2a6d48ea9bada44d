"""An operation done and written into the audit log: in one transaction with what it changes, unless it commits by itself."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from edge.admin.api.operation import Call, Operation
from edge.admin.api.server_address import asked_from
from edge.admin.auditing import fields_of, is_written, subject_of, write_afterwards, write_entry
from storage.postgres.audit import Entry

_NOT_WRITTEN = frozenset(("erase", "try_postback"))
"""The first writes itself, the second records nothing."""


async def perform(
    operation: Operation, call: Call, respond: Callable[[Any], web.StreamResponse]
) -> web.StreamResponse:
    """The operation's answer, once the log knows of it. What only looks is not written down, nor a dry run."""
    is_rehearsal = getattr(call.query, "dry_run", False)
    if operation.name in _NOT_WRITTEN or is_rehearsal or not is_written(operation.method, operation.name, operation.media):
        return respond(await operation.handle(call))
    if operation.method == "GET":  # a file, which is under way before it is whole
        await write_entry(call.backend, _entry(operation, call, None))
        return respond(await operation.handle(call))
    if operation.commits or operation.media:
        response = respond(await operation.handle(call))
        await write_afterwards(call.backend, _entry(operation, call, response))
        return response
    async with call.backend.transaction():
        response = respond(await operation.handle(call))
        await write_entry(call.backend, _entry(operation, call, response))
    return response


def _entry(operation: Operation, call: Call, response: web.StreamResponse | None) -> Entry:
    made = response.headers.get("Location", "") if response is not None else ""
    subject = subject_of(call.request.match_info) or made.removeprefix("/api/v1")
    asked = {"parameters": sorted(call.request.query)} if call.request.query else {}
    detail = {**fields_of(call.body), **asked}
    return Entry(call.caller.actor, operation.name, subject, detail, asked_from(call.backend, call.request))
