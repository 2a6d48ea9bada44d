"""The link builder: offer, partner and parameters make a tracking link, its QR code, and what the other side needs."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import segno
from aiohttp import web

from edge.admin.api.operation import EVERYBODY
from edge.admin.console.catalog_list import visible
from edge.admin.console.page import Page, Route, Visit
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Offer
from edge.tracking.urls import fault_in_url

MAX_VALUE_CHARS = 500
PARAMETERS = {
    "source": "Source",
    "aff_sub": "Sub 1",
    "aff_sub2": "Sub 2",
    "aff_sub3": "Sub 3",
    "aff_sub4": "Sub 4",
    "aff_sub5": "Sub 5",
    "aff_click_id": "Partner's click id",
    "contact_id": "Contact",
}
UTM = {f"utm_{name}": f"UTM {name}" for name in ("source", "medium", "campaign", "content", "term")}
KINDS = {"click": ("/aff_c", "click"), "impression": ("/aff_i", "impression pixel"), "direct": ("/clk", "direct, JSON")}
_BRINGS_ID = re.compile(r"[?&]([^=&#{}]+)=\{transaction_id\}")
MACROS = (
    ("aff_click_id", "the partner's own click id, as the link brought it"),
    ("payout", "what the partner earns"),
    ("amount", "what the sale was worth"),
    ("currency", "its currency"),
    ("status", "approved, pending, rejected or reversed"),
    ("transaction_id", "our click id"),
    ("conversion_id", "our id of the conversion: the same when it is told again"),
    ("offer_id", "the offer"),
    ("offer_name", "its name"),
    ("goal_id", "the goal; 0: the offer itself"),
    ("goal_name", "its name"),
    ("aff_sub1", "the link's sub 1; likewise aff_sub2 to aff_sub5"),
    ("source", "the link's source"),
    ("country_code", "the click's country"),
    ("device_type", "the click's device"),
    ("datetime", "when it happened, UTC; likewise date and time"),
    ("adv_sub1", "what the advertiser sent along; likewise adv_sub2 to adv_sub5"),
)


class Built(NamedTuple):
    """A link and its picture. `fault`: why there is none."""

    url: str = ""
    qr: str = ""
    fault: str = ""


class Snippet(NamedTuple):
    """Something to copy for the advertiser. `anchor`: its id in the page."""

    anchor: str
    title: str
    text: str
    note: str = ""


async def show(visit: Visit) -> web.Response:
    """The builder; the link alone while somebody types."""
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
    offers = [one for one in visible(visit, catalog, "offers") if isinstance(one, Offer)]
    values = _values(visit)
    offer = next((one for one in offers if str(one.id) == values["offer_id"]), None)
    built = _build(visit, values, offer)
    return visit.render(
        "links_built.html" if visit.is_fragment else "links.html",
        offers=offers,
        partners=visit.shared.catalog.partners(catalog) if visit.is_network else [],
        values=values,
        parameters=PARAMETERS,
        utm=UTM,
        kinds=KINDS,
        offer=offer,
        built=built,
        snippets=list(_snippets(catalog, values["origin"], offer)) if offer and not built.fault else [],
        macros=MACROS,
    )


async def picture(visit: Visit) -> web.Response:
    """The QR code of the same link as a file."""
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
    values = _values(visit)
    offers = (one for one in visible(visit, catalog, "offers") if isinstance(one, Offer))
    built = _build(visit, values, next((one for one in offers if str(one.id) == values["offer_id"]), None))
    if not built.qr:
        return web.Response(status=422, text=f"{built.fault or 'choose an offer and a partner'}\n")
    headers = {"Content-Disposition": f'attachment; filename="offer-{values["offer_id"]}-partner-{values["aff_id"]}.svg"'}
    return web.Response(body=_draw(built.url, is_inline=False), content_type="image/svg+xml", headers=headers)


def _values(visit: Visit) -> dict[str, str]:
    """The form's fields, from the query; a partner's links are its own."""
    names = ("offer_id", "aff_id", "url_id", "kind", "origin", *PARAMETERS, *UTM)
    values = {name: visit.asked(name)[:MAX_VALUE_CHARS] for name in names}
    values["origin"] = values["origin"].rstrip("/") or _origin(visit)
    values["kind"] = values["kind"] if values["kind"] in KINDS else "click"
    if visit.caller.aff_id:
        values["aff_id"] = str(visit.caller.aff_id)
    return values


def _origin(visit: Visit) -> str:
    """Where the public port is, as far as we know: on the host that the console was asked at."""
    settings = visit.shared.backend.settings
    try:
        host = urlsplit(f"//{visit.request.host}").hostname or "localhost"
    except ValueError:  # a Host that is none
        host = "localhost"
    scheme, usual = ("https", 443) if settings.tls_cert else ("http", 80)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if settings.port == usual else f"{scheme}://{shown}:{settings.port}"


def _build(visit: Visit, values: Mapping[str, str], offer: Offer | None) -> Built:
    if fault := fault_in_url(values["origin"]):
        return Built(fault=f"the tracking domain {fault}")
    if visit.caller.scope == "advertiser" or offer is None or not values["aff_id"].isdigit():
        return Built()
    kept = ("offer_id", "aff_id", "url_id", *PARAMETERS, *UTM)
    query = urlencode({name: values[name] for name in kept if values[name]})
    url = f"{values['origin']}{KINDS[values['kind']][0]}?{query}"
    try:
        return Built(url, _draw(url, is_inline=True).decode())
    except segno.DataOverflowError:
        return Built(url)


def _draw(url: str, *, is_inline: bool) -> bytes:
    """The QR code as SVG, without any style that the page's policy would refuse."""
    file = io.BytesIO()
    segno.make(url, error="m", micro=False).save(
        file, kind="svg", scale=4, border=2, xmldecl=not is_inline, svgns=True, omitsize=is_inline, svgclass=None, lineclass=None
    )
    return file.getvalue()


def _snippets(catalog: Catalog, origin: str, offer: Offer) -> Iterator[Snippet]:
    """What the advertiser puts into its shop."""
    advertiser = catalog.advertiser(offer.advertiser_id)
    token = "&security_token=TOKEN" if advertiser and advertiser.security_token else ""
    brought = _BRINGS_ID.search(offer.url)
    note = (
        f"CLICK_ID: what the landing page received as “{brought[1]}”. TOTAL and ORDER: the sale's amount and the order's id."
        if brought
        else "The offer's URL does not bring {transaction_id}: the shop never learns the click's id. Add it, or use the pixel."
    )
    note += " TOKEN: the advertiser's security token." if token else ""
    tail = f"&amount=TOTAL&adv_sub=ORDER{token}"
    yield Snippet("s-postback", "Postback, from server to server", f"{origin}/aff_lsr?transaction_id=CLICK_ID{tail}", note)
    for goal in offer.goals:
        url = f"{origin}/aff_goal?a=lsr&goal_id={goal.id}&transaction_id=CLICK_ID{tail}"
        yield Snippet(f"s-goal-{goal.id}", f"The same for the goal “{goal.name}”", url)
    if offer.pixels:
        pixel = f"{origin}/aff_l?offer_id={offer.id}&amp;amount=TOTAL&amp;adv_sub=ORDER"
        yield Snippet("s-pixel", "Pixel on the thank-you page", f'<img src="{pixel}" width="1" height="1" alt="">')
        yield Snippet(
            "s-script",
            "Script on every page, for browsers that block third-party cookies",
            f'<script src="{origin}/edge.js" async data-offer-id="{offer.id}"></script>',
            "On the thank-you page: clickedge.conversion({amount: TOTAL, adv_sub: ORDER}).",
        )



PAGE = Page(
    path="/links",
    title="Link builder",
    group="Catalog",
    icon="links",
    letter="l",
    scopes=EVERYBODY,
    routes=(Route("GET", "/links", show), Route("GET", "/links/qr.svg", picture)),
)
