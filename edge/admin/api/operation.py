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

    @property
    def actor(self) -> str:
        """The caller as the record of a change names it."""
        return f"{self.name} (key {self.key_id})"


class Call(NamedTuple):
    """A request, checked. `path`, `query`, `body`: structs as the operation names them, None where it names none."""

    caller: Caller
    backend: Backend
    request: web.Request
    path: Any
    query: Any
    body: Any

    @property
    def note(self) -> str:
        """The request as the record of a change names it."""
        return f"{self.request.method} {self.request.path[:200]}"


class Reply(NamedTuple):
    """An answer that needs more than a value: its status, its headers."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] = {}


class Shape(NamedTuple):
    """A JSON object whose schema is made elsewhere than of a struct; a body comes as a dict, decimals as Decimal.

    `schema` may refer to `components`, which have the names that they get on the OpenAPI page.
    """

    schema: Mapping[str, Any]
    components: Mapping[str, Any] = {}


Handler = Callable[[Call], Awaitable[Any]]
"""Returns the value to send as JSON, a Reply, or a response of its own (a stream)."""


class Operation(NamedTuple):
    """`path` with `{names}`, below /api/v1; `takes_any_query`: the handler reads `request.query` itself.

    `media`: what else than JSON it answers; `query`'s lists are repeated parameters. `body_type`, `answer_type`: what
    msgspec knows, or a Shape. `needs_match`: `If-Match` must be sent. `statuses`: problems that only this one has.
    `secrets`: members of the answer that are told once, so that a repetition with an Idempotency-Key lacks them.
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
    needs_match: bool = False
    has_etag: bool = False
    statuses: tuple[int, ...] = ()
    secrets: tuple[str, ...] = ()
    preview_type: Any = None
    """What `?dry_run=true` answers instead, with 200."""
    example: Any = None
    """A body, for the docs."""
    commits: bool = False
    """It is no single transaction: it takes no Idempotency-Key, and the audit log learns of it by itself or afterwards."""

    @property
    def is_repeatable(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return self.method == "POST" and self.body_type is not None and not self.media and not self.commits
