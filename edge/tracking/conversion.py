"""A conversion received: find the session if this worker still holds it, journal the rest. No verdict is made here.

`success=false;` says only what the edge knows alone: the id is missing (and nothing else names a click or a partner),
malformed or forged, the offer or goal unknown.

Whoever can guess an address can send postbacks with ids that are not ours, contacts and partners, and nothing here tells
those of advertisers from others. So of each sender only so many are taken: beyond that it is asked to try again later.
"""

from edge.counters import cell
from edge.tracking import cookies
from edge.tracking.catalog import OfferView
from edge.tracking.click_id import is_well_formed
from edge.tracking.crediting import credit_without_click, is_external_id
from edge.tracking.objections import forget_cookie
from edge.tracking.parameters import to_id
from edge.tracking.replies import SCRIPT, failure, success
from edge.tracking.request import GIF, UNAVAILABLE, Answer, Handled, Kind, Request
from edge.tracking.state import EdgeState
from storage.journal.events import Conversion, Session, Via, encode

MAX_TRANSACTION_ID_CHARS = 64
_POSTBACK, _PIXEL = Kind.POSTBACK.value, Kind.PIXEL.value
HIT = cell("edge_session_lookups_total", "hit")
MISS = cell("edge_session_lookups_total", "miss")
FORGED = cell("edge_forged_ids_total")
UNSTORED = cell("edge_unstored_refusals_total")


def handle_postback(state: EdgeState, request: Request, alias: str) -> Handled:
    """`/aff_lsr`: a server tells us of a conversion by the click's id."""
    return _postback(state, request, needs_goal=False)


def handle_goal_postback(state: EdgeState, request: Request, alias: str) -> Handled:
    """`/aff_goal?a=lsr`: the same for one of the offer's goals, which must be named."""
    return _postback(state, request, needs_goal=True)


def handle_pixel(state: EdgeState, request: Request, alias: str) -> Handled:
    """`/aff_l`: a browser tells us; the session comes from `transaction_id`, else from the offer's cookies."""
    request, params = forget_cookie(state, request), request.params
    offer = state.catalog.offer(to_id(params.get("offer_id", "")))
    if offer is None and "offer_id" not in params:
        offer = _offer_of_goal(state, request)
    sent = params.get("transaction_id", "")[:MAX_TRANSACTION_ID_CHARS]
    if sent:
        click_id = state.ids.parse(sent) or b""
    else:
        click_id = cookies.touch_of(request, offer, offer.attribution, state.ids) if offer else b""
    if not click_id and not _may_store(state, request, is_forged=bool(sent)):
        return Handled(_PIXEL, "refused", _pixel_reply(request))
    goal_id = _goal_id(offer, params)
    if goal_id < 0:  # the drain stores it, as one of an unknown goal
        goal_id = to_id(params.get("goal_id", ""))
    session = state.sessions.get(click_id) if click_id else None
    event = _event(state, request, "pixel", sent, click_id, offer, goal_id, session)
    return Handled(_PIXEL, "recorded", _pixel_reply(request), event)


def _offer_of_goal(state: EdgeState, request: Request) -> OfferView | None:
    """The only offer among those that the browser has a click of to have the goal whose id was sent."""
    goal_id = to_id(request.params.get("goal_id", ""))
    if not goal_id or not request.headers.cookie:
        return None
    offers = [state.catalog.offer(to_id(offer_id)) for offer_id in cookies.offers_in(request)]
    found = [
        one for one in offers if one and goal_id in one.goals_by_id and cookies.session_ids(request, one, state.ids)
    ]
    return found[0] if len(found) == 1 else None


def _postback(state: EdgeState, request: Request, *, needs_goal: bool) -> Handled:
    params = request.params
    as_json = params.get("format") == "json"
    sent = params.get("transaction_id", "")
    click_id = state.ids.parse(sent) or b""
    offer_id = params.get("offer_id", "")
    offer = state.catalog.offer(to_id(offer_id))
    is_external = False
    if not click_id:
        is_external = state.has_external_ids and is_external_id(sent)
        if not is_external and (sent or not _names_somebody(offer, params)):
            return _refuse_id(state, request, sent, as_json=as_json)
    if offer_id and offer is None:
        return Handled(_POSTBACK, "refused", failure("Invalid Offer ID", offer_id, as_json=as_json))
    session = state.sessions.get(click_id) if click_id else None
    if session is not None:  # the click's offer, where this worker knows it, beats the postback's own `offer_id`
        offer = state.catalog.offer(session.offer_id) or offer
    goal_id = _goal_id(offer, params)
    if goal_id < 0 or (needs_goal and not (params.get("goal_id") or params.get("goal_name"))):
        goal = params.get("goal_id") or params.get("goal_name", "")
        return Handled(_POSTBACK, "refused", failure("Invalid Goal ID", goal, as_json=as_json))
    if not click_id and not _may_take(state, request, sent):
        return Handled(_POSTBACK, "unavailable", UNAVAILABLE)
    event = _event(state, request, "postback", sent, click_id, offer, goal_id, session, is_external=is_external)
    return Handled(_POSTBACK, "recorded", success(as_json=as_json), event)


def _refuse_id(state: EdgeState, request: Request, sent: str, *, as_json: bool) -> Handled:
    answer = failure("Invalid Trans. ID", sent, as_json=as_json)
    if not sent or not _may_store(state, request, is_forged=True):
        return Handled(_POSTBACK, "refused", answer)
    event = _event(state, request, "postback", sent[:MAX_TRANSACTION_ID_CHARS], b"", None, 0)
    return Handled(_POSTBACK, "refused", answer, event)


def _names_somebody(offer: OfferView | None, params: dict[str, str]) -> bool:
    """Whether something else than a click's id says whose the conversion is: a contact, a partner, a promo code."""
    return "contact_id" in params or credit_without_click(offer, params) is not None


def _goal_id(offer: OfferView | None, params: dict[str, str]) -> int:
    """The goal meant, 0 for none, -1 for one that this offer does not have. Without an offer the drain finds out."""
    goal_id, name = params.get("goal_id", ""), params.get("goal_name", "")
    if goal_id in ("", "0"):
        if not name or offer is None:
            return 0
        goal = offer.goals_by_name.get(name)
        return goal.id if goal else -1
    number = to_id(goal_id)
    if not number or (offer is not None and number not in offer.goals_by_id):
        return -1
    return number


def _may_store(state: EdgeState, request: Request, *, is_forged: bool) -> bool:
    cells = state.counters.cells
    cells[FORGED] += is_forged
    now_ms = request.received_ms
    # The sender's first: what it may not store costs the others nothing.
    if state.refusals_of.take(request.client_ip, now_ms) and state.refusals.take(now_ms):
        return True
    cells[UNSTORED] += 1
    return False


def _may_take(state: EdgeState, request: Request, sent: str) -> bool:
    """Of a postback that names no click of ours. A guess at one of our ids stays a guess where others are taken too."""
    state.counters.cells[FORGED] += is_well_formed(sent)
    return state.unverified.take(request.client_ip, request.received_ms)


def _event(
    state: EdgeState,
    request: Request,
    via: Via,
    transaction_id: str,
    click_id: bytes,
    offer: OfferView | None,
    goal_id: int,
    session: Session | None = None,
    *,
    is_external: bool = False,
) -> bytes:
    if click_id:
        state.counters.cells[MISS if session is None else HIT] += 1
    return encode(
        Conversion(
            state.ids.mint(request.received_ms),
            state.catalog.revision,
            request.received_ms,
            via,
            transaction_id,
            click_id,
            encode(session) if session else b"",
            offer.id if offer else 0,
            goal_id,
            request.params,
            request.client_ip,
            request.headers.user_agent,
            request.headers.referrer,
            is_external,
        )
    )


def _pixel_reply(request: Request) -> Answer:
    return SCRIPT if request.params.get("format") == "js" else GIF
