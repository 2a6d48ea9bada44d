"""Keys: who may get in, new ones (the token is shown once), and revoking."""

from datetime import UTC, date, datetime, time, timedelta
from typing import get_args

from aiohttp import web

from edge.admin.api.operation import ADMIN, Scope
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Refusal, Route, Visit, not_found
from edge.admin.keys import IssuedKey, KeyOrder, KeyRefused, issue_key
from storage.postgres.api_keys import load_key, load_keys, revoke_key

SCOPES: tuple[Scope, ...] = get_args(Scope)
_FIELDS = ("name", "scope", "advertiser_id", "aff_id", "expires_on")
_MAX_DIGITS = 10


async def show(visit: Visit) -> web.Response:
    """All keys, and the form for a new one."""
    return await _page(visit)


async def create(visit: Visit) -> web.Response:
    """Make a key, and show its token: it is in this answer alone."""
    order, faults = _read(visit)
    if faults:
        return await _page(visit, faults=faults, status=422)
    async with visit.connection() as conn:
        try:
            issued = await issue_key(conn, order, visit.caller.actor)
        except KeyRefused as error:
            faults = {"expires_on" if field == "expires_at" else field: text for field, text in error.faults}
            return await _page(visit, faults=faults, status=422)
    return await _page(visit, issued=issued)


async def revoke(visit: Visit) -> web.StreamResponse:
    """End a key for good."""
    key_id = int(visit.request.match_info["key_id"])
    if key_id == visit.caller.key_id:
        raise Refusal(409, "You are logged in with this key", "Log in with another one to revoke it.")
    async with visit.connection() as conn:
        key = await load_key(conn, key_id)
        if key is None:
            raise not_found("key")
        await revoke_key(conn, key_id)
    visit.shared.backend.keys.forget(key_id)
    return web.Response(status=303, headers={"Location": f"/keys?revoked={key_id}"})


async def _page(
    visit: Visit, *, issued: IssuedKey | None = None, faults: dict[str, str] | None = None, status: int = 200
) -> web.Response:
    after = _number(visit.asked("after"))
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        keys = await load_keys(conn, after=after, limit=201)
    return visit.render(
        "keys.html",
        status=status,
        keys=keys[:200],
        next_after=keys[199].key_id if len(keys) > 200 else None,
        issued=issued,
        faults=faults or {},
        values={name: "" if issued else str(visit.form.get(name, "")) for name in _FIELDS},
        scopes=SCOPES,
        names=Names(catalog),
        partners=visit.shared.catalog.partners(catalog),
        advertisers=visit.shared.catalog.advertisers(catalog),
        revoked=_number(visit.asked("revoked")),
    )


def _read(visit: Visit) -> tuple[KeyOrder, dict[str, str]]:
    """The key that the form orders; what only the form can get wrong, by field."""
    said = {name: str(visit.form.get(name, "")).strip() for name in _FIELDS}
    scope = next((one for one in SCOPES if one == said["scope"]), None)
    faults = {} if scope else {"scope": f"allowed: {', '.join(SCOPES)}"}
    expires_at = None
    if said["expires_on"]:
        try:
            day = date.fromisoformat(said["expires_on"]) + timedelta(days=1)
            expires_at = datetime.combine(day, time(), visit.shared.zone).astimezone(UTC)
        except (ValueError, OverflowError):
            faults["expires_on"] = "is no day: write it 2027-01-31"
    # The form has both lists; the one that is not of the scope says nothing.
    order = KeyOrder(
        name=said["name"],
        scope=scope or "reports",
        advertiser_id=_number(said["advertiser_id"]) if scope == "advertiser" else 0,
        aff_id=_number(said["aff_id"]) if scope == "partner" else 0,
        expires_at=expires_at,
    )
    return order, faults


def _number(text: str) -> int:
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0
    return found if found < 2**31 else 0


PAGE = Page(
    path="/keys",
    title="Keys",
    group="System",
    icon="keys",
    letter="k",
    scopes=ADMIN,
    routes=(
        Route("GET", "/keys", show),
        Route("POST", "/keys", create),
        Route("POST", "/keys/{key_id:[0-9]{1,9}}/revoke", revoke),
    ),
)
