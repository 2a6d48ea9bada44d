"""A page of the console, and what its handlers are given."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import jinja2
import msgspec
from aiohttp import web
from multidict import MultiDictProxy

from edge.admin.api.operation import ADMIN, READERS, Caller, Scope
from edge.admin.backend import Backend
from edge.admin.console.assets import Assets
from edge.admin.console.known_catalog import KnownCatalog
from storage.postgres.connection import Connection
from storage.postgres.overview import Whose

NETWORK = frozenset(READERS)


class Shared(msgspec.Struct, frozen=True):
    """What all pages use."""

    backend: Backend
    templates: jinja2.Environment
    assets: Assets
    catalog: KnownCatalog
    zone: ZoneInfo


class Visit(msgspec.Struct, frozen=True):
    """One request of somebody who is logged in."""

    shared: Shared
    caller: Caller
    request: web.Request
    form_token: str
    form: MultiDictProxy[Any]
    """The fields of a POST, its token already checked; empty for a GET."""

    @property
    def sees_payout(self) -> bool:
        """What partners earn: for the network and the partners."""
        return self.caller.scope != "advertiser"

    @property
    def sees_revenue(self) -> bool:
        """What advertisers pay: for the network and the advertisers."""
        return self.caller.scope != "partner"

    @property
    def is_network(self) -> bool:
        """Sees everybody's figures."""
        return self.caller.scope in NETWORK

    @property
    def may_edit(self) -> bool:
        """Changes the catalog, sends test postbacks."""
        return self.caller.scope in ADMIN

    @property
    def whose(self) -> Whose:
        """Whose rows count for whoever looks."""
        return Whose(self.caller.aff_id, self.caller.advertiser_id)

    @property
    def is_fragment(self) -> bool:
        """Whether a part of the page is asked for, to be put into one that is shown."""
        return self.request.headers.get("HX-Request") == "true" and "HX-History-Restore-Request" not in self.request.headers

    def asked(self, name: str, default: str = "") -> str:
        """A parameter of the query, without spaces around it."""
        return self.request.query.get(name, default).strip()

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection to the database."""
        return self.shared.backend.connection()

    def slow_connection(self) -> AbstractAsyncContextManager[Connection]:
        """The same for reports and lists that may take seconds: only some of all connections are for these."""
        return self.shared.backend.slow_connection()

    def render(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """The template as an answer. It knows `visit`, `caller`, and what is passed."""
        text = self.shared.templates.get_template(template).render(visit=self, caller=self.caller, **values)
        return web.Response(text=text, status=status, content_type="text/html")


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """A method and path, and what answers. `scopes`: who may, if not all who may see the page.

    `takes_body`: the handler reads a body of any size itself; the form's token is in a header or in the query then.
    """

    method: str
    path: str
    handler: Handler
    scopes: Collection[Scope] = ()
    takes_body: bool = False


class Page(NamedTuple):
    """A page: its place in the navigation, and its routes. `letter`: the key after `g` that opens it."""

    path: str
    title: str
    group: str
    icon: str
    letter: str
    scopes: Collection[Scope]
    routes: Sequence[Route]


class Refusal(Exception):
    """A request that cannot be answered as asked; shown as a page."""

    def __init__(self, status: int, title: str, text: str = "") -> None:
        """`title`, `text`: for the person who asked."""
        self.status = status
        self.title = title
        self.text = text
        super().__init__(title)


def not_found(what: str) -> Refusal:
    """For what is not there, and for what is not theirs to see."""
    return Refusal(404, f"There is no {what}", "It may have another id, or belong to somebody else.")
