"""Postbacks: what partners were told, telling them again, and trying an address without recording anything."""

from uuid import UUID

from aiohttp import web

from edge.admin.api.operation import ADMIN, Scope
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Refusal, Route, Visit
from edge.admin.postback_trial import read_address, read_target, send_sample, tell, tell_sample, try_postback
from edge.errors import UserError
from edge.replaying import replay
from edge.tracking.postback_story import attempt_in_words, state_in_words
from edge.tracking.postbacks import without_secrets
from storage.postgres.postbacks import list_postbacks

ROWS = 50
MAX_URL_CHARS = 4096
SEEN_BY: tuple[Scope, ...] = ("admin", "reports", "partner")


async def show_log(visit: Visit) -> web.Response:
    """The newest postbacks, or those that fail."""
    only_failed, before = visit.asked("show") == "failed", visit.asked("before")
    async with visit.connection() as conn:
        names = Names(await visit.shared.catalog.current(conn))
        rows = await list_postbacks(
            conn,
            only_failed=only_failed,
            limit=ROWS + 1,
            aff_id=visit.caller.aff_id,
            before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        )
    return visit.render(
        "postbacks.html",
        rows=rows[:ROWS],
        next_before=rows[ROWS - 1]["outbox_id"] if len(rows) > ROWS else None,
        only_failed=only_failed,
        queued=visit.asked("queued") if visit.asked("queued").isdecimal() else "",
        names=names,
        state_in_words=state_in_words,
        attempt_in_words=attempt_in_words,
        without_secrets=without_secrets,
    )


async def tell_again(visit: Visit) -> web.StreamResponse:
    """Queue a conversion's postbacks once more."""
    try:
        conversion_id = UUID(str(visit.form.get("conversion_id", "")))
    except ValueError as error:
        raise Refusal(422, "This is no conversion's id") from error
    async with visit.connection() as conn:
        done = await replay(conn, ids=[conversion_id], actor=f"replay by {visit.caller.name}")
    return web.Response(status=303, headers={"Location": f"/postbacks?queued={done.postbacks}"})


async def show_tester(visit: Visit) -> web.Response:
    """The empty forms."""
    return _tester(visit)


async def try_one(visit: Visit) -> web.Response:
    """Try the address that was sent."""
    url, data, from_ip = (str(visit.form.get(name, "")).strip() for name in ("url", "data", "from_ip"))
    settings = visit.shared.backend.settings
    if not url or len(url) > MAX_URL_CHARS:
        return _tester(visit, fault=f"an address of 1 to {MAX_URL_CHARS} characters is needed", status=422)
    try:
        if "{" in url:
            return _tester(visit, lines=list(tell_sample(await send_sample(url, settings))))
        read_target(url, data or None)  # what is no postback is told whether or not the database answers
        read_address(from_ip or "127.0.0.1")
        async with visit.connection() as conn:
            tried = await try_postback(conn, settings, url, data or None, "", from_ip or "127.0.0.1")
        return _tester(visit, lines=list(tell(tried)))
    except UserError as error:
        return _tester(visit, fault=str(error), status=422)


def _tester(visit: Visit, *, lines: list[str] | None = None, fault: str = "", status: int = 200) -> web.Response:
    values = {name: str(visit.form.get(name, "")) for name in ("url", "data", "from_ip")}
    return visit.render("postback_test.html", status=status, lines=lines, fault=fault, values=values)


PAGE = Page(
    path="/postbacks",
    title="Postbacks",
    group="Delivery",
    icon="postbacks",
    letter="b",
    scopes=SEEN_BY,
    routes=(
        Route("GET", "/postbacks", show_log),
        Route("POST", "/postbacks/replay", tell_again, ADMIN),
        Route("GET", "/postbacks/test", show_tester, ADMIN),
        Route("POST", "/postbacks/test", try_one, ADMIN),
    ),
)
