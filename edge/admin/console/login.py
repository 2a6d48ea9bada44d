"""Logging in with an API key."""

import math
import time

from aiohttp import web

from edge.admin.api.server_address import asked_from as address_of
from edge.admin.auditing import LogIns
from edge.admin.console.keys import Keys, caller_of, print_of
from edge.admin.console.page import Shared
from edge.admin.console.protection import Attempts, comes_from_elsewhere, is_https
from edge.admin.console.sessions import COOKIE, LASTS_S, Signer

LOGIN_PATH = "/login"
MAX_KEY_CHARS = 512


class Login:
    """The form and what comes of it."""

    def __init__(self, shared: Shared, signer: Signer, keys: Keys) -> None:
        self._shared = shared
        self._signer = signer
        self._keys = keys
        self._attempts = Attempts()
        self._log = LogIns(shared.backend)

    async def show(self, request: web.Request) -> web.Response:
        """The empty form."""
        return self._form(request, request.query.get("next", ""))

    async def enter(self, request: web.Request) -> web.StreamResponse:
        """A session for a key that stands; else the form again with what is wrong."""
        if comes_from_elsewhere(request):
            return self._form(request, "", "That form came from another site.", 403)
        form, address = await request.post(), address_of(self._shared.backend, request)
        if wait_s := self._attempts.wait_s(address):
            response = self._form(request, "", f"Too many wrong keys: wait {math.ceil(wait_s)} seconds.", 429)
            response.headers["Retry-After"] = str(math.ceil(wait_s))
            return response
        token, where = str(form.get("key", "")).strip(), str(form.get("next", ""))
        self._attempts.note_failure(address)  # before the look-up, so that many at once are counted too
        found = await self._keys.of_token(token) if 0 < len(token) <= MAX_KEY_CHARS else None
        if found is None:
            await self._log.note_failure(address, "no such key")
            return self._form(request, where, "No such key, or it has been revoked or is over.", 401)
        self._attempts.forget(address)
        await self._log.note(caller_of(found).actor, address)
        response = web.Response(status=303, headers={"Location": _own_path(where)})
        response.set_cookie(
            COOKIE,
            self._signer.issue(found.key_id, print_of(found), time.time()),
            max_age=LASTS_S,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=is_https(request),
        )
        return response

    def _form(self, request: web.Request, where: str, fault: str = "", status: int = 200) -> web.Response:
        template = self._shared.templates.get_template("login.html")
        text = template.render(request=request, next=_own_path(where), fault=fault)
        return web.Response(text=text, status=status, content_type="text/html")


def _own_path(where: str) -> str:
    """A path of this console, whatever was asked for: no other site's, and no header's end."""
    is_own = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable() and where.isascii()
    return where if is_own else "/"
