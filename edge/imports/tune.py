"""TUNE's (HasOffers') offers, affiliates and advertisers as a catalog. Macros in URLs are ours already."""

from typing import Any

from edge.imports.draft import Draft, Item, cut, money, more_than_zero, unique_name
from edge.imports.exports import Record, Source, Tables, is_empty
from edge.tracking.macros import find_unknown_macros
from edge.tracking.parameters import to_id
from edge.tracking.urls import host_of

PAYOUT_TYPES = ("cpa_flat", "cpa_percentage", "cpa_both", "cpc", "cpm")
_CAPS = {
    f"{ours}_{what}": f"{theirs}{thing}_cap"
    for ours, theirs in (("daily", ""), ("monthly", "monthly_"), ("total", "lifetime_"))
    for what, thing in (("conversions", "conversion"), ("payout", "payout"), ("revenue", "revenue"))
}
_STATUS = {"active": "active", "paused": "paused", "expired": "expired", "pending": "paused"}
_SAYS_NOTHING = ("id", "modified", "created", "offer_id", "date_added")


def build(tables: Tables, currency: str) -> Draft:
    """The catalog of these records. `currency`: of offers that name none."""
    draft = Draft("From TUNE.")
    for record in _records(tables, "Advertiser"):
        _add_advertiser(draft, Source(record))
    for record in _records(tables, "Affiliate"):
        _add_partner(draft, Source(record))
    for record in _records(tables, "Offer"):
        _add_offer(draft, Source(record), currency)
    _add_inner(draft, tables)
    _add_whitelists(draft, tables)
    _add_pixels(draft, tables)
    return draft


def _records(tables: Tables, model: str) -> list[Record]:
    """In order of their ids, so that the same export always gives the same file."""
    return [record for _, record in sorted(tables.get(model, {}).items(), key=lambda pair: (to_id(pair[0]), pair[0]))]


def _add_advertiser(draft: Draft, source: Source) -> None:
    number = to_id(source.take("id"))
    item = draft.item("advertisers", number, source.take("company", "name") or f"Advertiser {number}")
    item.put("ref", cut(source.take("ref_id")))
    item.put("security_token", source.take("conversion_security_token", "security_token"))
    if (status := source.take("status").lower()) not in ("", "active"):
        item.note(f"its status in TUNE is {status}; an advertiser has none here")
    source.skip(*_SAYS_NOTHING)
    item.note_left(source.left())


def _add_partner(draft: Draft, source: Source) -> None:
    number = to_id(source.take("id"))
    item = draft.item("partners", number, source.take("company", "name") or f"Partner {number}")
    item.put("ref", cut(source.take("ref_id")))
    if (status := source.take("status").lower()) not in ("", "active"):
        item.put("status", "blocked")
        item.note(f"its status in TUNE is {status}: blocked here, its clicks redirect and earn nothing")
    source.skip(*_SAYS_NOTHING)
    item.note_left(source.left())


def _add_offer(draft: Draft, source: Source, currency: str) -> None:
    number = to_id(source.take("id"))
    item = draft.item("offers", number, source.take("name") or f"Offer {number}")
    item.put("advertiser_id", to_id(source.take("advertiser_id")) or None)
    item.put("ref", cut(source.take("ref_id")))
    item.fields["url"] = _url(item, source.take("offer_url"))
    item.put("preview_url", source.take("preview_url"))
    _put_status(item, source)
    put_terms(item.fields, source, item)
    item.put("currency", source.take("currency") or currency)
    _put_tracking(item, source)
    item.put("caps", _caps(source))
    source.skip(*_SAYS_NOTHING, "enable_offer_whitelist")
    item.note_left(source.left())


def _url(item: Item, url: str) -> str:
    for name in find_unknown_macros(url):
        item.note(f"nobody here knows the macro {{{name}}}: it expands to nothing")
    return url


def _put_status(item: Item, source: Source) -> None:
    status = source.take("status").lower() or "active"
    if status == "deleted":
        item.why_left_out = "it is deleted in TUNE"
    item.fields["status"] = _STATUS.get(status, "paused")
    if item.fields["status"] != status:
        item.note(f"its status in TUNE is {status}")
    if (expires := source.take("expiration_date")[:10]) and not expires.startswith("0000"):
        item.put("expires_at", f"{expires}T23:59:59Z")
        item.note(f"expires_at: the end of {expires} in UTC; TUNE's day is that of your network's time zone")
    item.put("redirect_offer_id", to_id(source.take("redirect_offer_id")) or None)


def put_terms(fields: dict[str, Any], source: Source, item: Item, *, is_part: bool = False) -> None:
    """What the partner is paid, and what the advertiser pays (`max_payout` in TUNE's words).

    `is_part`: of a goal, where what is not given is the offer's, so that a zero must be said.
    """
    for ours, kinds, flat, percent in (
        ("payout", ("payout_type",), ("default_payout",), ("percent_payout",)),
        ("revenue", ("revenue_type",), ("max_payout", "default_revenue"), ("max_percent_payout", "percent_revenue")),
    ):
        kind, amount, share = source.take(*kinds), source.take(*flat), source.take(*percent)
        if kind and kind not in PAYOUT_TYPES:
            item.note(f"not carried over: {kinds[0]} = {kind}")
        elif kind:
            fields[f"{ours}_type"] = kind
        for name, text in ((ours, amount), (f"{ours}_percent", share)):
            if known := money(text) if is_part else more_than_zero(text):
                fields[name] = known
            elif text and not is_empty(text):
                item.note(f"not carried over: {name} = {text}")


def _put_tracking(item: Item, source: Source) -> None:
    if source.is_set("approve_conversions"):
        item.put("approval", "manual")
    if source.is_set("require_approval"):
        item.note("in TUNE partners must be approved for it; here every active partner may run it")
    for field, name in (("click_window", "session_hours"), ("impression_window", "session_impression_hours")):
        if hours := to_id(source.take(name)):
            item.put(field, f"{hours}h")
    if source.is_set("allow_multiple_conversions"):
        item.put("duplicates", "new")
    if source.is_set("allow_website_links", "allow_direct_links"):
        hosts = sorted({host for url in (item.fields["url"], item.fields.get("preview_url", "")) if (host := host_of(url))})
        item.put("allowed_domains", hosts)
        item.note("allowed_domains: the hosts of its own URLs; add others that deep links go to")
    protocol = source.take("protocol")
    if protocol in ("server", "server_affiliate"):
        item.fields["pixels"] = False
    if source.is_set("is_seo_friendly_301"):
        item.put("redirect", "301")


def _caps(source: Source) -> dict[str, Any]:
    caps: dict[str, Any] = {}
    for ours, theirs in _CAPS.items():
        text = source.take(theirs)
        if ours.endswith("conversions"):
            if number := to_id(text.partition(".")[0]):
                caps[ours] = number
        elif more_than_zero(text):
            caps[ours] = money(text)
    return caps


def _add_inner(draft: Draft, tables: Tables) -> None:
    """Goals, landing pages, creatives, and what single partners get."""
    taken: dict[int, set[str]] = {}
    for model in ("Goal", "OfferUrl", "OfferFile", "OfferPayout", "OfferRevenue", "OfferConversionCap"):
        for record in _records(tables, model):
            source = Source(record)
            offer_id = to_id(source.take("offer_id"))
            item = draft.find("offers", offer_id)
            if item is None:
                draft.remark(f"{model} {source.take('id')} is of offer {offer_id}, which is not in the export")
            elif model == "Goal":
                _add_goal(item, source, taken.setdefault(offer_id, set()))
            elif model in ("OfferUrl", "OfferFile"):
                _add_page(item, source, is_file=model == "OfferFile")
            else:
                _add_override(item, source, model)


def _add_goal(item: Item, source: Source, taken: set[str]) -> None:
    number, status = to_id(source.take("id")), source.take("status").lower()
    name = source.take("name")
    if status not in ("", "active"):
        item.note(f"not carried over: goal {number} {name}, {status} in TUNE")
        return
    goal: dict[str, Any] = {"id": number, "name": unique_name(name, taken, number)}
    put_terms(goal, source, item, is_part=True)
    if source.is_set("allow_multiple_conversions"):
        goal["duplicates"] = "new"
    item.add("goals", goal)
    source.skip(*_SAYS_NOTHING)
    item.note_left((f"goal {number}: {field}", value) for field, value in source.left())


def _add_page(item: Item, source: Source, *, is_file: bool) -> None:
    number, name = to_id(source.take("id")), cut(source.take("name", "display", "filename"))
    if (status := source.take("status").lower()) not in ("", "active"):
        item.note(f"not carried over: {'creative' if is_file else 'landing page'} {number} {name}, {status} in TUNE")
    elif is_file:
        item.add("creatives", {"id": number, "name": name or str(number)})
    else:
        weight = to_id(source.take("weight"))
        url = _url(item, source.take("offer_url"))
        item.add("landing_pages", {"id": number, "name": name, "url": url, "weight": weight})
        if not weight:
            item.note("landing pages have weight 0: as in TUNE they are reached by url_id alone; raise it to rotate")


def _add_override(item: Item, source: Source, model: str) -> None:
    aff_id, goal_id = to_id(source.take("affiliate_id")), to_id(source.take("goal_id"))
    rows = item.fields.setdefault("overrides", [])
    row: dict[str, Any] | None = next((one for one in rows if (one["aff_id"], one.get("goal_id", 0)) == (aff_id, goal_id)), None)
    if row is None:
        row = {"aff_id": aff_id}
        if goal_id:
            row["goal_id"] = goal_id
        rows.append(row)
        rows.sort(key=lambda one: (one["aff_id"], one.get("goal_id", 0)))
    if model == "OfferConversionCap":
        if caps := _caps(source):
            row["caps"] = caps
        return
    ours = "payout" if model == "OfferPayout" else "revenue"
    for field, text in ((ours, source.take(ours)), (f"{ours}_percent", source.take(f"percent_{ours}", f"{ours}_percent"))):
        if money(text):
            row[field] = money(text)


def _add_whitelists(draft: Draft, tables: Tables) -> None:
    """TUNE allows addresses by offer, we by advertiser: carried over where all offers of an advertiser agree to it."""
    by_offer: dict[int, list[str]] = {}
    for record in _records(tables, "OfferWhitelist"):
        source = Source(record)
        offer_id, content = to_id(source.take("offer_id")), source.take("content")
        if source.take("type") == "postback":
            by_offer.setdefault(offer_id, []).append(content)
        elif item := draft.find("offers", offer_id):
            item.note(f"not carried over: only pages of {content} may fire its pixel in TUNE")
    for advertiser in draft.items("advertisers"):
        offers = [offer for offer in draft.items("offers") if offer.fields.get("advertiser_id") == advertiser.id]
        if offers and all(offer.id in by_offer for offer in offers):
            advertiser.put("allowed_ips", sorted({ip for offer in offers for ip in by_offer[offer.id]}))
            continue
        for offer in offers:
            if offer.id in by_offer:
                offer.note(f"not carried over: in TUNE only {', '.join(by_offer[offer.id])} may send its postbacks")


def _add_pixels(draft: Draft, tables: Tables) -> None:
    """A partner's postback for all offers becomes its `postback_url`; others are noted."""
    for record in _records(tables, "OfferPixel"):
        source = Source(record)
        partner, offer_id = draft.find("partners", to_id(source.take("affiliate_id"))), to_id(source.take("offer_id"))
        code, kind, status = source.take("code", "url"), source.take("type"), source.take("status").lower()
        if partner is None:
            draft.remark(f"pixel {source.take('id')} is of a partner who is not in the export")
        elif status not in ("", "active"):
            continue
        elif not offer_id and kind in ("", "url") and "postback_url" not in partner.fields:
            partner.put("postback_url", _url(partner, code))
        else:
            where = f"offer {offer_id}" if offer_id else "all offers"
            partner.note(f"not carried over: pixel of type {kind or 'url'} for {where}: {code}")
