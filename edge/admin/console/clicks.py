"""The click explorer: the newest clicks, and the story of one as a timeline."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from aiohttp import web

from edge.admin.api.operation import EVERYBODY
from edge.admin.console.catalog_list import visible
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Route, Visit, not_found
from edge.admin.sight import is_theirs, sight_of
from edge.refusing_caps import find_refusing_caps
from edge.stories import find_erased_at
from edge.tracking.click_id import ms_of, node_of, read_well_formed, worker_of
from edge.tracking.timeline import timeline
from storage.postgres.catalog import load_owners
from storage.postgres.connection import Connection
from storage.postgres.overview import Filters, newest_clicks, newest_conversions
from storage.postgres.stories import Row, Story, find_story

NEWEST = 50
MAX_ID_CHARS = 256
_MAX_NUMBER = 2**31 - 1


async def show_list(visit: Visit) -> web.StreamResponse:
    """The newest clicks; with an id, the way to its story."""
    if wanted := visit.asked("id"):
        return web.Response(status=303, headers={"Location": f"/clicks/{quote(wanted[:MAX_ID_CHARS], safe='')}"})
    now = datetime.now(UTC)
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        caller = visit.caller
        own_offers = visit.shared.catalog.offers_of(catalog, caller.advertiser_id)
        aff_id = caller.aff_id or _number(visit.asked("partner"))
        filters = Filters(_number(visit.asked("offer")), aff_id, own_offers, caller.advertiser_id)
        clicks = await newest_clicks(conn, now, filters, NEWEST)
        rejected = [
            one for one in await newest_conversions(conn, now - timedelta(days=1), visit.whose, NEWEST)
            if one["status"] == "rejected"
        ]
    return visit.render(
        "clicks.html",
        clicks=clicks,
        rejected=rejected[:10],
        filters=filters,
        offers=list(visible(visit, catalog, "offers")),
        partners=list(visible(visit, catalog, "partners")),
        names=Names(catalog),
    )


async def explain(visit: Visit) -> web.Response:
    """The story of an id."""
    transaction_id = visit.request.match_info["id"][:MAX_ID_CHARS].strip()
    click_id = read_well_formed(transaction_id)
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        story = await _own(visit, conn, await find_story(conn, transaction_id.replace("\0", ""), click_id))
        if visit.is_network:
            story = story._replace(erased_at=await find_erased_at(conn, click_id, story))
        is_capped = story.click is not None and story.click["reason"] == "capped" and visit.is_network
        caps = await find_refusing_caps(conn, story.click) if story.click and is_capped else []
    if not visit.is_network and not any(story):
        raise not_found("click of this id")
    touch = story.click or story.impression
    known_id = touch["click_id"].bytes if touch else click_id
    return visit.render(
        "click.html",
        transaction_id=transaction_id,
        shown_id=known_id.hex() if known_id else transaction_id,
        minted=_minted(known_id) if known_id else None,
        is_ours=click_id is not None,
        touch=touch,
        moments=timeline(story, caps, sight_of(visit.caller.scope)),
        names=Names(catalog),
    )


def _minted(click_id: bytes) -> dict[str, Any]:
    """When and where an id of ours was made, as it says itself; a mistyped one says anything."""
    try:
        at = datetime.fromtimestamp(ms_of(click_id) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return {}
    return {"at": at, "worker": worker_of(click_id), "node": node_of(click_id)}


async def _own(visit: Visit, conn: Connection, story: Story) -> Story:
    """What of a story whoever looks may see: a click of an offer that was theirs then, a sale that is booked as theirs."""
    caller = visit.caller
    if visit.is_network:
        return story
    touches = [one for one in (story.click, story.impression) if one]
    owners = await load_owners(conn, {(one["offer_id"], one["catalog_revision"]) for one in touches})

    def is_own(touch: Row | None) -> bool:
        if touch is None:
            return False
        owner = owners.get((touch["offer_id"], touch["catalog_revision"]), 0)
        return is_theirs({**touch, "advertiser_id": owner}, caller.scope, caller.advertiser_id, caller.aff_id)

    conversions = [
        one for one in story.conversions if is_theirs(one, caller.scope, caller.advertiser_id, caller.aff_id)
    ]
    ids = {one["conversion_id"] for one in conversions}
    return Story(
        click=story.click if is_own(story.click) else None,
        impression=story.impression if is_own(story.impression) else None,
        conversions=conversions,
        changes=[one for one in story.changes if one["conversion_id"] in ids],
        waiting=[],
        postbacks=[one for one in story.postbacks if one["conversion_id"] in ids and caller.aff_id in (0, one["aff_id"])],
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _MAX_NUMBER else 0


PAGE = Page(
    path="/clicks",
    title="Click explorer",
    group="Watch",
    icon="clicks",
    letter="c",
    scopes=EVERYBODY,
    routes=(Route("GET", "/clicks", show_list), Route("GET", "/clicks/{id:.+}", explain)),
)
