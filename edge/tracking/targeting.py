"""An offer's rules: conditions on who clicks, when and with what, compiled when the offer is. The first that matches acts.

What is not known (no geo database, no user agent, no such parameter) never matches.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, tzinfo
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edge.tracking.catalog_document import Offer, Rule, When
from edge.tracking.catalog_fields import WEEKDAYS
from edge.tracking.headers import first_language
from edge.tracking.macros import Template, compile_template
from edge.tracking.request import Request
from edge.tracking.surroundings import Device, Enrichment, Place
from edge.tracking.visitors import place_in

ALL_VISITORS = 100
_PURPOSE = "rule {0} of offer {1}"
_MAC, _CHROME_OS = "mac os x", "chrome os"
_OTHER_NAMES = {"macos": _MAC, "mac os": _MAC, "os x": _MAC, "osx": _MAC, "chromeos": _CHROME_OS}
"""What people call a system -> how it is recorded, in small letters."""


class Visit:
    """A click before anything is decided about it; what is asked is worked out once."""

    def __init__(self, request: Request, enrichment: Enrichment) -> None:
        self.request = request
        self._enrichment = enrichment

    @cached_property
    def device(self) -> Device:
        """By the user agent."""
        return self._enrichment.device(self.request.headers.user_agent)

    @cached_property
    def place(self) -> Place:
        """By the address."""
        return self._enrichment.place(self.request.client_ip)

    def parameter(self, name: str) -> str:
        """As sent; "" for none."""
        return self.request.params.get(name, "")

    def local_time(self, zone: tzinfo) -> datetime:
        """When it came, by that zone's clocks."""
        return datetime.fromtimestamp(self.request.received_ms / 1000, zone)


Read = Callable[[Visit], tuple[object, ...]]
"""What a click has to offer for a condition: one of these must be wanted. Nothing, where that is not known."""


class CompiledRule(NamedTuple):
    """One rule. Exactly one of `landing_page_id`, `offer_id`, `template` and `reject` is something."""

    position: int
    """In the catalog file, from 1."""
    conditions: tuple[tuple[Read, frozenset[object]], ...]
    percentage: int
    purpose: str
    landing_page_id: int
    offer_id: int
    template: Template | None
    reject: str

    @property
    def names_page(self) -> bool:
        """Whether it chooses among the pages of its own offer."""
        return not (self.reject or self.offer_id)

    def matches(self, visit: Visit, seed: Callable[[], bytes]) -> bool:
        """Whether it is for this click; `seed` gives the visitor's, asked for only under a percentage."""
        for read, wanted in self.conditions:
            if wanted.isdisjoint(read(visit)):
                return False
        return self.percentage >= ALL_VISITORS or place_in(ALL_VISITORS, seed(), self.purpose) < self.percentage


def find_rule(rules: Iterable[CompiledRule], visit: Visit, seed: Callable[[], bytes]) -> CompiledRule | None:
    """The first rule that is for this click."""
    return next((rule for rule in rules if rule.matches(visit, seed)), None)


def compile_rules(offer: Offer) -> tuple[CompiledRule, ...]:
    """The offer's rules as clicks need them. Never raises: what a stored rule cannot mean, it never matches."""
    return tuple(_compile(rule, position, offer) for position, rule in enumerate(offer.rules, 1))


def _compile(rule: Rule, position: int, offer: Offer) -> CompiledRule:
    then = rule.then
    return CompiledRule(
        position,
        tuple(_conditions(rule.when, offer.time_zone)),
        rule.when.percentage,
        _PURPOSE.format(position, offer.id),
        then.landing_page_id,
        then.offer_id,
        compile_template(then.url) if then.url else None,
        then.reject,
    )


def _conditions(when: When, zone_name: str) -> Iterable[tuple[Read, frozenset[object]]]:
    """The cheap ones first."""
    for name in _PARAMETERS:
        if wanted := getattr(when, name):
            yield _parameter(name), frozenset(wanted)
    if when.weekday:
        yield _weekday(_zone(zone_name)), frozenset(when.weekday)
    if when.hour:
        yield _hour(_zone(zone_name)), frozenset(when.hour)
    for name, read in _READERS.items():
        if wanted := getattr(when, name):
            yield read, frozenset(_folded(name, one) for one in wanted)


def _folded(name: str, wanted: str) -> str:
    folded = wanted.casefold()
    return _OTHER_NAMES.get(folded, folded) if name == "os" else folded


def _zone(name: str) -> tzinfo | None:
    """None: this machine's tables do not know it."""
    try:
        return ZoneInfo(name)
    except (OSError, LookupError, ValueError):
        return None


def _parameter(name: str) -> Read:
    return lambda visit: (visit.parameter(name),)


def _weekday(zone: tzinfo | None) -> Read:
    return lambda visit: (WEEKDAYS[visit.local_time(zone).weekday()],) if zone else ()


def _hour(zone: tzinfo | None) -> Read:
    return lambda visit: (visit.local_time(zone).hour,) if zone else ()


def _language(visit: Visit) -> tuple[object, ...]:
    """The whole tag, and its first part."""
    tag = first_language(visit.request.headers.language).casefold()
    return tag, tag.partition("-")[0]


def _region(visit: Visit) -> tuple[object, ...]:
    """`ca` and `us-ca`: California's code is Canada's too."""
    place = visit.place
    region = place.region.casefold()
    return (region, f"{place.country.casefold()}-{region}") if region else ()


_PARAMETERS = ("source", "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5")
# Wanted values are never empty, so that the "" of what is not known is none of them.
_READERS: dict[str, Read] = {
    "language": _language,
    "device": lambda visit: (visit.device.device_type.casefold(),),
    "os": lambda visit: (visit.device.os.casefold(),),
    "browser": lambda visit: (visit.device.browser.casefold(),),
    "country": lambda visit: (visit.place.country.casefold(),),
    "region": _region,
}
