"""What one item of a catalog says about another: ids that lead nowhere, circles, and lists that contradict themselves."""

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Alias, Caps, Offer, Override, Partner, Rule
from edge.tracking.parameters import to_id

MAX_REDIRECT_OFFERS = 3
_NO_CAPS = Caps()
Named = Mapping[str, set[str]]


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong: `where` is `table[id].field`, `problem` says what is wrong and what is allowed."""

    where: str
    problem: str


def find_faults(
    offers: Mapping[str, Offer], aliases: Mapping[str, Alias], named: Named, existing: Catalog
) -> Iterator[Fault]:
    """The faults between items. `named`: the ids in the file by table; `existing`: what is stored and stays."""
    look = _Look(named, existing)
    for offer in offers.values():
        yield from _faults_of_offer(offer, look)
    for alias in aliases.values():
        yield from _faults_of_alias(alias, look)
    yield from _faults_of_chains(offers, existing)


def find_postback_faults(partners: Mapping[str, Partner], named: Named, existing: Catalog) -> Iterator[Fault]:
    """The offers that partners' postbacks name and nobody has; arguments as of `find_faults`."""
    look = _Look(named, existing)
    for partner in partners.values():
        for position, postback in enumerate(partner.postbacks, 1):
            for offer_id in postback.offer_ids:
                yield from look.fault(f"partners[{partner.id}].postbacks[#{position}].offer_ids", "offers", offer_id)


class _Look(msgspec.Struct, frozen=True):
    named: Named
    existing: Catalog

    def fault(self, where: str, kind: str, item_id: int | str) -> Iterator[Fault]:
        """A fault if `item_id` is neither in the file nor stored; 0 stands for none."""
        key = str(item_id)
        if item_id and key not in self.named[kind] and key not in self.existing.bodies(kind):
            yield Fault(where, f"there is no {kind}[{key}], neither named here nor stored")


def _faults_of_offer(offer: Offer, look: _Look) -> Iterator[Fault]:
    here = f"offers[{offer.id}]"
    yield from look.fault(f"{here}.advertiser_id", "advertisers", offer.advertiser_id)
    yield from look.fault(f"{here}.redirect_offer_id", "offers", offer.redirect_offer_id)
    for override in offer.overrides:
        yield from _faults_of_override(f"{here}.overrides[{override.aff_id}]", override, offer, look)
    for promo in offer.promo_codes:
        yield from look.fault(f"{here}.promo_codes[{promo.code}].aff_id", "partners", promo.aff_id)
    for code, count in Counter(promo.code.casefold() for promo in offer.promo_codes).items():
        if count > 1:
            yield Fault(f"{here}.promo_codes", f"the code {code!r} is there {count} times: case does not count")
    for position, rule in enumerate(offer.rules, 1):
        yield from _faults_of_rule(f"{here}.rules[#{position}].then", rule, offer, look)
    for name, count in Counter(goal.name for goal in offer.goals).items():
        if count > 1:
            yield Fault(f"{here}.goals", f"the name {name!r} is there {count} times: it must be unique")


def _faults_of_override(where: str, override: Override, offer: Offer, look: _Look) -> Iterator[Fault]:
    yield from look.fault(f"{where}.aff_id", "partners", override.aff_id)
    if override.goal_id and override.goal_id not in {goal.id for goal in offer.goals}:
        yield Fault(f"{where}.goal_id", f"the offer has no goal {override.goal_id}")
    if override.goal_id and override.caps != _NO_CAPS:
        yield Fault(f"{where}.caps", "belong to a partner's override without goal_id: they count all of its goals")


def _faults_of_rule(where: str, rule: Rule, offer: Offer, look: _Look) -> Iterator[Fault]:
    then = rule.then
    if sum(map(bool, (then.landing_page_id, then.offer_id, then.url, then.reject))) != 1:
        yield Fault(where, "says nothing or too much; allowed: one of landing_page_id, offer_id, url, reject")
    if then.landing_page_id and then.landing_page_id not in {page.id for page in offer.landing_pages}:
        yield Fault(f"{where}.landing_page_id", f"the offer has no landing page {then.landing_page_id}")
    if then.offer_id == offer.id:
        yield Fault(f"{where}.offer_id", "is this very offer: a rule sends clicks to another")
    yield from look.fault(f"{where}.offer_id", "offers", then.offer_id)


def _faults_of_alias(alias: Alias, look: _Look) -> Iterator[Fault]:
    here = f"aliases[{alias.path}].params"
    for name, kind in (("offer_id", "offers"), ("aff_id", "partners")):
        text = alias.params.get(name)
        if text is None:
            if name == "offer_id" and alias.kind in ("click", "impression"):
                yield Fault(f"{here}.offer_id", f"is missing: an alias of kind {alias.kind} needs it")
        elif not to_id(text):
            yield Fault(f"{here}.{name}", f"{text!r} is not an id")
        else:
            yield from look.fault(f"{here}.{name}", kind, to_id(text))


def _faults_of_chains(offers: Mapping[str, Offer], existing: Catalog) -> Iterator[Fault]:
    """Circles of `redirect_offer_id`, and chains longer than a click will follow."""
    if not any(offer.redirect_offer_id for offer in offers.values()):
        return
    next_of = {offer.id: offer.redirect_offer_id for offer in offers.values()}
    for key in existing.bodies("offers"):
        stored = existing.offer(int(key)) if key not in offers else None
        if stored is not None:
            next_of[stored.id] = stored.redirect_offer_id
    for start in next_of:
        chain = [start]
        while next_of.get(chain[-1]) and len(chain) <= MAX_REDIRECT_OFFERS + 1 and chain[-1] not in chain[:-1]:
            chain.append(next_of[chain[-1]])
        steps = " -> ".join(map(str, chain))
        if chain[-1] in chain[:-1]:
            yield Fault(f"offers[{start}].redirect_offer_id", f"goes round in a circle: {steps}")
        elif len(chain) > MAX_REDIRECT_OFFERS + 1:
            yield Fault(f"offers[{start}].redirect_offer_id", f"takes more than {MAX_REDIRECT_OFFERS} steps: {steps}")
