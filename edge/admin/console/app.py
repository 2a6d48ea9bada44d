"""The console put together: its routes on the admin port, who may use them, and what goes wrong in words."""

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import jinja2
import structlog
from aiohttp import web
from multidict import MultiDict, MultiDictProxy

from edge.admin.api.operation import Caller
from edge.admin.api.server_address import asked_from
from edge.admin.auditing import fields_of, subject_of, write_afterwards
from edge.admin.backend import Backend, DatabaseAway
from edge.admin.console import formats
from edge.admin.console.assets import PREFIX, Assets
from edge.admin.console.keys import Keys, caller_of, print_of
from edge.admin.console.known_catalog import KnownCatalog
from edge.admin.console.login import LOGIN_PATH, Login
from edge.admin.console.page import Page, Refusal, Route, Shared, Visit
from edge.admin.console.protection import protect
from edge.admin.console.sessions import COOKIE, Ended, Signer
from edge.logs import RateLimited
from edge.secrets import load_or_create
from storage.errors import StorageError
from storage.postgres.audit import Entry
from storage.postgres.connection import is_retryable

TEMPLATES = Path(__file__).parent / "templates"
SECRET_FILE = "console.secret"  # noqa: S105 - the name of a file
ENDED_FILE = "console.ended"
_SECRET_BYTES = 32
_TOKEN_HEADER, _TOKEN_FIELD = "X-CSRF-Token", "csrf"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_THEMES = frozenset(("light", "dark"))

quietly = RateLimited(structlog.get_logger(), 5.0)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Console:
    """Pages for people, on the admin port."""

    def __init__(self, backend: Backend, pages: Sequence[Page]) -> None:
        """`pages`: in the order of the navigation."""
        zone = ZoneInfo(backend.settings.timezone)
        assets = Assets()
        self._pages = pages
        self._shared = Shared(backend, _open_templates(assets, pages, zone), assets, KnownCatalog(), zone)
        self._signer = Signer(load_or_create(backend.settings.data_path / SECRET_FILE, _SECRET_BYTES))
        self._ended = Ended(backend.settings.data_path / ENDED_FILE)
        self._keys = Keys(backend)
        self._login = Login(self._shared, self._signer, self._keys)

    def routes(self) -> list[web.RouteDef]:
        """All there is."""
        own = [
            web.get(PREFIX + "{name}", self._guarded(self._shared.assets.answer)),
            web.get(LOGIN_PATH, self._guarded(self._login.show)),
            web.post(LOGIN_PATH, self._guarded(self._login.enter)),
            web.post("/logout", self._guarded(self._leave)),
        ]
        nowhere = web.get("/{path:.*}", self._guarded(self._nowhere))  # the last one: it matches whatever is left
        return [*own, *(self._route(page, route) for page in self._pages for route in page.routes), nowhere]

    def _route(self, page: Page, route: Route) -> web.RouteDef:
        async def answer(request: web.Request) -> web.StreamResponse:
            visit = await self._visit(request, takes_body=route.takes_body)
            if isinstance(visit, web.Response):
                return visit
            try:
                if visit.caller.scope not in page.scopes:
                    raise Refusal(404, "There is no such page", "Or it is not for this key.")
                if route.scopes and visit.caller.scope not in route.scopes:
                    raise Refusal(403, "This key may only look", "Changes need a key with the scope admin.")
                response = await route.handler(visit)
                if is_change(route, response):
                    await write_afterwards(self._shared.backend, _entry(visit))
                return response
            except Refusal as refusal:
                return visit.render("refusal.html", status=refusal.status, refusal=refusal)

        return web.route(route.method, route.path, self._guarded(answer))

    def _guarded(self, answer: Answer) -> Answer:
        """With the headers on whatever is answered, and words for a database that is away."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                response = await answer(request)
            except web.HTTPException as error:
                protect(error)
                raise
            except Exception as error:
                response = self._failed(request, error)
            protect(response)
            return response

        return guarded

    def _failed(self, request: web.Request, error: Exception) -> web.Response:
        is_away = isinstance(error, DatabaseAway | StorageError | OSError | TimeoutError) or is_retryable(error)
        if is_away:
            quietly.warning("console_without_database", operation=request.path, error=str(error))
        else:
            quietly.error("console_failed", operation=request.path, error=str(error), kind=type(error).__name__)
        template = self._shared.templates.get_template("away.html" if is_away else "failed.html")
        response = web.Response(
            text=template.render(theme=theme_of(request)), status=503 if is_away else 500, content_type="text/html"
        )
        if is_away:
            response.headers["Retry-After"] = "5"
        return response

    async def _nowhere(self, request: web.Request) -> web.StreamResponse:
        visit = await self._visit(request)
        if isinstance(visit, web.Response):
            return web.Response(status=404, text="there is nothing at this address\n")
        refusal = Refusal(404, "There is no such page", "The address may be mistyped.")
        return visit.render("refusal.html", status=404, refusal=refusal)

    async def _visit(self, request: web.Request, *, takes_body: bool = False) -> Visit | web.Response:
        """Who asks, with the form that was sent (not where the handler `takes_body`); or where to go instead."""
        cookie = request.cookies.get(COOKIE, "")
        caller = await self._caller(cookie)
        if caller is None:
            return _to_login(request)
        form: MultiDictProxy[Any] = MultiDictProxy(MultiDict())
        visit = Visit(self._shared, caller, request, self._signer.form_token(cookie), form)
        if request.method not in _SAFE:
            form = form if takes_body else await request.post()
            sent = request.query if takes_body else form
            token = request.headers.get(_TOKEN_HEADER) or sent.get(_TOKEN_FIELD)
            if not isinstance(token, str) or not self._signer.is_form_token(cookie, token):
                refusal = Refusal(403, "This form is not one of ours", "It may be too old. Load the page again.")
                return visit.render("refusal.html", status=403, refusal=refusal)
            visit = Visit(self._shared, caller, request, visit.form_token, form)
        return visit

    async def _caller(self, cookie: str) -> Caller | None:
        session = self._signer.read(cookie, time.time())
        session = None if cookie in self._ended else session
        key = await self._keys.of_id(session.key_id) if session else None
        if session is None or key is None or not self._signer.is_of(session, print_of(key)):
            return None
        return caller_of(key)

    async def _leave(self, request: web.Request) -> web.StreamResponse:
        visit = await self._visit(request)
        response = visit if isinstance(visit, web.Response) and visit.status == 403 else _redirect(LOGIN_PATH)
        if response.status != 403:
            cookie = request.cookies.get(COOKIE, "")
            if session := self._signer.read(cookie, time.time()):
                self._ended.add(cookie, session)
            response.del_cookie(COOKIE, path="/")
        return response


def is_change(route: Route, response: web.StreamResponse) -> bool:
    """Whether a page has changed something, or given rows away: not where it only showed what would be."""
    if route.method == "GET":
        return route.path.startswith("/exports/") or route.path.endswith("/export")
    return response.status < 400 and not route.path.endswith(("/review", "/edit", "/test"))


def _entry(visit: Visit) -> Entry:
    request, route = visit.request, visit.request.match_info.route
    path = route.resource.canonical if route.resource else request.path
    subject = subject_of(request.match_info)
    return Entry(
        visit.caller.actor, f"console {path}", subject, fields_of(visit.form), asked_from(visit.shared.backend, request)
    )


def theme_of(request: web.Request) -> str:
    """`light` or `dark` as the person chose; "" to follow the system."""
    theme = request.cookies.get("theme", "")
    return theme if theme in _THEMES else ""


def _to_login(request: web.Request) -> web.Response:
    if request.headers.get("HX-Request"):
        return web.Response(status=401, headers={"HX-Redirect": LOGIN_PATH})
    where = quote(request.path_qs, safe="/") if request.method == "GET" and request.path != "/" else ""
    return _redirect(f"{LOGIN_PATH}?next={where}" if where else LOGIN_PATH)


def _redirect(location: str) -> web.Response:
    return web.Response(status=303, headers={"Location": location})


def _open_templates(assets: Assets, pages: Sequence[Page], zone: ZoneInfo) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(asset=assets.url, pages=pages, theme_of=theme_of, zone=str(zone), change=formats.change)
    environment.filters.update(
        count=formats.count,
        money=formats.money,
        cash=formats.cash,
        percent=formats.percent,
        duration=formats.duration,
        size=formats.size,
        moment=lambda value: formats.moment(value, zone),
        clock=lambda value: formats.clock(value, zone),
    )
    return environment
