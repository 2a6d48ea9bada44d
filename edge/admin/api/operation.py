"""What an operation of the API is: one entry of a table, from which routes, checks and the OpenAPI page are made."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from aiohttp import web

from edge.admin.backend import Backend

Scope = Literal["admin", "reports", "advertiser", "partner"]
ADMIN: tuple[Scope, ...] = ("admin",)
READERS: tuple[Scope, ...] = ("admin", "reports")
EVERYBODY: tuple[Scope, ...] = ("admin", "reports", "advertiser", "partner")


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `advertiser_id`, `aff_id`: whose figures alone a key of that scope sees, else 0."""

    key_id: int
    name: str
    scope: Scope
    advertiser_id: int = 0
    aff_id: int = 0


class Call(NamedTuple):
    """A request, checked. `path`, `query`, `body`: structs as the operation names them, None where it names none."""

    caller: Caller
    backend: Backend
    request: web.Request
    path: Any
    query: Any
    body: Any


class Reply(NamedTuple):
    """An answer that needs more than a value: its status, its headers."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] = {}


Handler = Callable[[Call], Awaitable[Any]]
"""Returns the value to send as JSON, a Reply, or a response of its own (a stream)."""


class Operation(NamedTuple):
    """`path` with `{names}`, below /api/v1; `takes_any_query`: the handler reads `request.query` itself.

    `media`: what else than JSON it answers; `query`'s lists are repeated parameters.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    handle: Handler
    scopes: tuple[Scope, ...] = ADMIN
    path_type: type[msgspec.Struct] | None = None
    query_type: type[msgspec.Struct] | None = None
    takes_any_query: bool = False
    body_type: Any = None
    answer_type: Any = None
    status: int = 200
    media: tuple[str, ...] = ()
