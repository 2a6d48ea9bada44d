"""What makes a conversion count once, and what a later one asks of an earlier: the keys, the mode, the advertiser's word."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal, Protocol, get_args

from edge.tracking.status_codes import Reason, Status
from edge.tracking.verdict import Ask, ConversionFacts, ConversionTerms, OfferView, Touch

MAX_KEY_CHARS = 256
_SAID: dict[str, Status] = {status: status for status in get_args(Status)}
_LATE: frozenset[Reason] = frozenset(
    ("offer_inactive", "unknown_partner", "partner_blocked", "outside_window", "too_soon")
)
"""What refuses a new conversion, but not the advertiser's word on an earlier one."""
_LATE_ENDS: frozenset[Reason] = _LATE | {"invalid_amount", "currency_mismatch"}
"""Nor its taking one back, to which amounts do not matter."""


class Case(Protocol):
    """What is asked about."""

    @property
    def sent(self) -> ConversionFacts: ...
    @property
    def touch(self) -> Touch: ...
    @property
    def offer(self) -> OfferView: ...
    @property
    def terms(self) -> ConversionTerms: ...
    @property
    def goal_id(self) -> int: ...


def said_of(sent: ConversionFacts) -> Status | Literal[""]:
    """The status that the advertiser's server sent; browsers have no say, and other words mean nothing."""
    return _SAID.get(sent.params.get("status", "").lower(), "") if sent.via != "pixel" else ""


def late_ask(case: Case, faults: Iterable[Reason]) -> Ask | None:
    """What a conversion that is refused for all these may still ask of an earlier one."""
    allowed = _LATE_ENDS if said_of(case.sent) in ("rejected", "reversed") else _LATE
    return ask_of(case) if allowed.issuperset(faults) else None


def ask_of(case: Case, *, is_accepted: bool = False) -> Ask | None:
    """What it asks. `is_accepted`: it would count by itself, if no other stood in its way."""
    said, mode = said_of(case.sent), case.terms.duplicates
    changes = mode if is_accepted and mode in ("update", "increment") else ""
    if not said and not changes:
        return None
    event_id = case.sent.params.get("adv_unique1", "") if mode in ("new", "new_repeated", "by_event_id") else ""
    return Ask(
        said=said,
        mode=changes,
        click_id=case.touch.click_id,
        named_id=case.touch.named_id,
        goal_id=case.goal_id,
        # The named touch's first: whoever is credited by now may have a conversion of his own.
        seeks=(claims_of(case) if is_accepted else _named(claims_of(case), event_id))[::-1],
        event_id=event_id,
        only_pending=is_accepted,
        is_manual=case.offer.approval == "manual",
    )


def claims_of(case: Case) -> tuple[str, ...]:
    """The uniqueness keys; `update` and `increment` find their holder by the key that `reject` claims.

    The named click's too: a postback sent again must not count twice because the visitor clicked in between.
    """
    params, touch, mode = case.sent.params, case.touch, case.terms.duplicates
    unique_id, event_id = params.get("conversion_unique_id", ""), params.get("adv_unique1", "")
    partner = f"{touch.offer_id}:{touch.aff_id}:{case.goal_id}"
    places = [_place(one, case.goal_id) for one in (touch.click_id, touch.named_id) if one]
    return keys_of(places, partner, mode, unique_id, event_id)


def repeat_key_of(case: Case) -> str:
    """Held by the first of its click and goal, where all count and the later ones are marked; "" where none is."""
    is_marked = case.terms.duplicates == "new_repeated" and case.touch.click_id
    return f"r:{_place(case.touch.click_id, case.goal_id)}" if is_marked else ""


def keys_of(places: Iterable[str], partner: str, duplicates: str, unique_id: str, event_id: str) -> tuple[str, ...]:
    """The uniqueness keys of a conversion of these places (click:goal) or, without a click, of offer:partner:goal."""
    if unique_id:
        return (f"u:{_key_part(unique_id)}",)
    if duplicates in ("new", "new_repeated"):
        return ()
    places = dict.fromkeys(places)
    if not places:  # A rebill repeats by nature: only what names the event tells a repetition from the next one.
        return (f"p:{partner}:{_key_part(event_id)}",) if event_id else ()
    if duplicates == "by_event_id":
        return tuple(f"e:{place}:{_key_part(event_id)}" for place in places)
    return tuple(f"c:{place}" for place in places)


def _place(click_id: bytes, goal_id: int) -> str:
    """Click and goal, as keys name them."""
    return f"{click_id.hex()}:{goal_id}"


def _named(claims: tuple[str, ...], event_id: str) -> tuple[str, ...]:
    """The keys, if they name one conversion among several of a click and goal."""
    is_named = any(key.startswith("u:") or (key.startswith("e:") and event_id) for key in claims)
    return claims if is_named else ()


def _key_part(value: str) -> str:
    """`value`, or its hash when it is long: Postgres refuses index entries above 2.7 kB."""
    if len(value) <= MAX_KEY_CHARS:
        return value
    return "blake2b-" + blake2b(value.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
