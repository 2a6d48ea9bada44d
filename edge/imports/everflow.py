"""Everflow's offers, partners and advertisers as a catalog; macros in URLs are rewritten to ours."""

import re
from typing import Any

from edge.imports.draft import Draft, Item, cut, inline, money, more_than_zero, unique_name
from edge.imports.exports import Record, Source, Tables, as_text, entries
from edge.tracking.macros import find_unknown_macros
from edge.tracking.parameters import to_id
from edge.tracking.urls import host_of

_MACRO = re.compile(r"\{([A-Za-z0-9_]{1,64})\}")
_MACROS = {
    **{f"sub{n}": f"aff_sub{n}" for n in range(1, 6)},
    **{f"adv{n}": f"adv_sub{n}" for n in range(1, 6)},
    "source_id": "source",
    "creative_id": "file_id",
    "offer_url_id": "url_id",
    "event_id": "goal_id",
    "event_name": "goal_name",
    "coupon_code": "promo_code",
    "user_ip": "ip",
    "payout_amount": "payout",
    "revenue_amount": "revenue",
    "currency_id": "currency",
    "idfa": "ios_ifa",
    "google_ad_id": "google_aid",
    "platform": "device_os",
    "os_version": "device_os_version",
    "carrier": "mobile_carrier",
    "http_user_agent": "user_agent",
}
_PAYOUT_TYPES = {"cpa": "cpa_flat", "cps": "cpa_percentage", "cpa_cps": "cpa_both", "cpc": "cpc", "cpm": "cpm"}
_REVENUE_TYPES = {"rpa": "cpa_flat", "rps": "cpa_percentage", "rpa_rps": "cpa_both", "rpc": "cpc", "rpm": "cpm"}
_TYPES = {"payout": _PAYOUT_TYPES, "revenue": _REVENUE_TYPES}
_SPANS = {"daily": "daily", "weekly": "weekly", "monthly": "monthly", "total": "global"}
_COUNTED = {"clicks": "click", "conversions": "conversion"}
_SUMMED = ("payout", "revenue")
_SAYS_NOTHING = ("network_id", "time_created", "time_saved", "relationship")


def build(tables: Tables, currency: str) -> Draft:
    """The catalog of these records. `currency`: of offers that name none."""
    draft = Draft("From Everflow.")
    touches: dict[int, str] = {}
    for record in _records(tables, "advertisers"):
        _add_advertiser(draft, Source(record), touches)
    for record in _records(tables, "affiliates"):
        _add_partner(draft, Source(record))
    for record in _records(tables, "offers"):
        _add_offer(draft, record, currency, touches)
    bases = _add_payouts(draft, tables)
    for record in _records(tables, "urls"):
        _add_page(draft, Source(record))
    for record in _records(tables, "custom"):
        _add_custom(draft, record, bases)
    for record in _records(tables, "pixels"):
        _add_pixel(draft, Source(record))
    return draft


def rewrite_macros(url: str) -> str:
    """Everflow's macros in our words; one that is unknown here stays as it is."""
    return _MACRO.sub(lambda found: f"{{{_MACROS.get(found[1], found[1])}}}", url)


def _records(tables: Tables, table: str) -> list[Record]:
    """In order of their ids, so that the same export always gives the same file."""
    return [record for _, record in sorted(tables.get(table, {}).items(), key=lambda pair: (to_id(pair[0]), pair[0]))]


def _add_advertiser(draft: Draft, source: Source, touches: dict[int, str]) -> None:
    number = to_id(source.take("network_advertiser_id"))
    item = draft.item("advertisers", number, source.take("name") or f"Advertiser {number}")
    item.put("security_token", source.take("verification_token"))
    touches[number] = source.take("attribution_method")
    if (status := source.take("account_status").lower()) not in ("", "active"):
        item.note(f"its status in Everflow is {status}; an advertiser has none here")
    source.skip(*_SAYS_NOTHING)
    item.note_left(source.left())


def _add_partner(draft: Draft, source: Source) -> None:
    number = to_id(source.take("network_affiliate_id"))
    item = draft.item("partners", number, source.take("name") or f"Partner {number}")
    if (status := source.take("account_status").lower()) not in ("", "active"):
        item.put("status", "blocked")
        item.note(f"its status in Everflow is {status}: blocked here, its clicks redirect and earn nothing")
    source.skip(*_SAYS_NOTHING)
    item.note_left(source.left())


def _add_offer(draft: Draft, record: Record, currency: str, touches: dict[int, str]) -> None:
    source = Source(record)
    number = to_id(source.take("network_offer_id"))
    item = draft.item("offers", number, source.take("name") or f"Offer {number}")
    item.put("advertiser_id", to_id(source.take("network_advertiser_id")) or None)
    item.fields["url"] = _url(item, source.take("destination_url"))
    item.put("preview_url", source.take("preview_url"))
    _put_status(item, source)
    _put_terms(item.fields, source, item)
    item.put("currency", source.take("currency_id") or currency)
    _put_tracking(item, source)
    if touches.get(item.fields.get("advertiser_id", 0), "").startswith("first"):
        item.put("attribution", "first")
    _put_caps(item, source)
    _put_redirect(item, record)
    source.skip(*_SAYS_NOTHING)
    item.note_left(source.left())


def _url(item: Item, url: str) -> str:
    ours = rewrite_macros(url)
    for name in find_unknown_macros(ours):
        item.note(f"nobody here knows the macro {{{name}}}: it expands to nothing")
    return ours


def _put_status(item: Item, source: Source) -> None:
    status = source.take("offer_status").lower() or "active"
    if status == "deleted":
        item.why_left_out = "it is deleted in Everflow"
    item.fields["status"] = status if status in ("active", "paused") else "paused"
    if item.fields["status"] != status:
        item.note(f"its status in Everflow is {status}")
    if (expires := source.take("date_live_until")[:10]) and not expires.startswith("0000"):
        item.put("expires_at", f"{expires}T23:59:59Z")
        item.note(f"expires_at: the end of {expires} in UTC; Everflow's day is that of your network's time zone")


def _put_terms(fields: dict[str, Any], source: Source, item: Item, *, is_part: bool = False) -> None:
    """What the partner is paid and the advertiser pays.

    `is_part`: of a goal or an override, where what is not given is the offer's, so that a zero must be said.
    """
    for ours, types in _TYPES.items():
        read = money if is_part else more_than_zero
        kind, amount = source.take(f"{ours}_type").lower(), read(source.take(f"{ours}_amount"))
        share = read(source.take(f"{ours}_percentage"))
        if kind in types:
            fields[f"{ours}_type"] = types[kind]
        elif kind not in ("", "blank"):
            item.note(f"not carried over, nothing is paid: {ours}_type = {kind}, {amount or 0}, {share or 0} %")
            fields |= {f"{ours}_type": "cpa_flat", ours: "0.00"}
            continue
        if amount:
            fields[ours] = amount
        if share:
            fields[f"{ours}_percent"] = share


def _put_tracking(item: Item, source: Source) -> None:
    if hours := to_id(source.take("session_duration")):
        item.put("click_window", f"{hours}h")
    if (definition := source.take("session_definition")) not in ("", "cookie"):
        item.note(f"its sessions in Everflow are told by {definition}; here by the click's id, for pixels by cookie")
    mode = source.take("redirect_mode")
    if mode in ("single_meta_refresh", "double_meta_refresh"):
        item.put("redirect", mode)
    elif mode not in ("", "standard"):
        item.note(f"not carried over: redirect_mode = {mode}")
    if source.take("conversion_method") == "server_postback":
        item.fields["pixels"] = False
    if source.take("visibility") in ("require_approval", "private"):
        item.note("in Everflow partners must be approved for it; here every active partner may run it")
    if source.is_set("is_allow_deep_link"):
        urls = (item.fields["url"], item.fields.get("preview_url", ""))
        item.put("allowed_domains", sorted({host for url in urls if (host := host_of(url))}))
        item.note("allowed_domains: the hosts of its own URLs; add others that deep links go to")


def _put_caps(item: Item, source: Source) -> None:
    caps: dict[str, Any] = {}
    for ours, theirs in _SPANS.items():
        for what, thing in _COUNTED.items():
            if number := to_id(source.take(f"{theirs}_{thing}_cap").partition(".")[0]):
                caps[f"{ours}_{what}"] = number
        for what in _SUMMED:
            if amount := more_than_zero(source.take(f"{theirs}_{what}_cap")):
                caps[f"{ours}_{what}"] = amount
    is_off = source.take("is_caps_enabled") in ("0", "false")
    if caps and is_off:
        item.note(f"not carried over, being switched off: caps {inline(caps)}")
    else:
        item.put("caps", caps)


def _put_redirect(item: Item, record: Record) -> None:
    """Where traffic goes that the offer does not take: the first offer of its redirects."""
    relationship = record.get("relationship")
    redirects = entries(relationship.get("redirects", {})) if isinstance(relationship, dict) else []
    targets = [number for one in redirects if (number := to_id(as_text(one.get("redirect_network_offer_id"))))]
    number = to_id(as_text(record.get("redirect_network_offer_id"))) or next(iter(targets), 0)
    item.put("redirect_offer_id", number or None)
    if len(targets) > 1:
        item.note(f"it has {len(targets)} redirects in Everflow, to the offers {', '.join(map(str, targets))}; here it has one")


def _add_payouts(draft: Draft, tables: Tables) -> set[str]:
    """The default entry is the offer's own terms, the others are its goals; the ids of the defaults."""
    bases, taken = set(), dict[int, set[str]]()
    for record in _records(tables, "payouts"):
        source = Source(record)
        text, offer_id = source.take("network_offer_payout_revenue_id"), to_id(source.take("network_offer_id"))
        item = draft.find("offers", offer_id)
        if item is None:
            draft.remark(f"payout {text} is of offer {offer_id}, which is not in the export")
            continue
        name = source.take("entry_name")
        duplicates = "new" if source.is_set("is_allow_duplicate_conversion") else ""
        if source.is_set("is_must_approve_conversion"):
            item.put("approval", "manual")
        if source.is_set("is_default"):
            bases.add(text)
            _put_terms(item.fields, source, item)
            item.put("duplicates", duplicates)
        else:
            goal: dict[str, Any] = {"id": to_id(text), "name": unique_name(name, taken.setdefault(offer_id, set()), to_id(text))}
            _put_terms(goal, source, item, is_part=True)
            if duplicates:
                goal["duplicates"] = duplicates
            item.add("goals", goal)
        source.skip(*_SAYS_NOTHING)
        item.note_left((f"payout {text}: {field}", value) for field, value in source.left())
    return bases


def _add_page(draft: Draft, source: Source) -> None:
    number, offer_id = to_id(source.take("network_offer_url_id")), to_id(source.take("network_offer_id"))
    item, name = draft.find("offers", offer_id), cut(source.take("name"))
    if item is None:
        draft.remark(f"offer URL {number} is of offer {offer_id}, which is not in the export")
    elif (status := source.take("url_status", "offer_url_status").lower()) not in ("", "active"):
        item.note(f"not carried over: landing page {number} {name}, {status} in Everflow")
    else:
        weight = to_id(source.take("weight"))
        url = _url(item, source.take("destination_url"))
        item.add("landing_pages", {"id": number, "name": name, "url": url, "weight": weight})
        if not weight:
            item.note("landing pages have weight 0: as in Everflow they are reached by url_id (there: uid); raise it to rotate")


def _add_custom(draft: Draft, record: Record, bases: set[str]) -> None:
    """A custom payout or revenue: an override for each of its partners."""
    source = Source(record)
    name, item = cut(source.take("name")), draft.find("offers", to_id(source.take("network_offer_id")))
    if item is None or source.take("custom_setting_status") not in ("", "active"):
        return
    base = source.take("network_offer_payout_revenue_id")
    goal_id = 0 if base in bases else to_id(base)
    terms: dict[str, Any] = {}
    for ours in _TYPES:
        if source.is_set(f"is_custom_{ours}_enabled"):
            own = Source({name: record.get(name) for name in (f"{ours}_type", f"{ours}_amount", f"{ours}_percentage")})
            _put_terms(terms, own, item, is_part=True)
    numbers = record.get("network_affiliate_ids") or []
    partners = sorted({to_id(as_text(one)) for one in numbers}) if isinstance(numbers, list) else []
    if source.is_set("is_apply_all_affiliates") or not partners:
        item.note(f"not carried over: {name or 'a custom payout'} for all partners: {inline(terms)}; put it into the offer itself")
        return
    if dates := [text for end in ("date_valid_from", "date_valid_to") if (text := source.take(end))]:
        item.note(f"{name or 'a custom payout'} is limited in time in Everflow ({' to '.join(dates)}), here it is not")
    for aff_id in partners:
        row = {"aff_id": aff_id, **({"goal_id": goal_id} if goal_id else {}), **terms}
        item.add("overrides", row)
    item.fields["overrides"].sort(key=lambda one: (one["aff_id"], one.get("goal_id", 0)))


def _add_pixel(draft: Draft, source: Source) -> None:
    """A partner's global postback becomes its `postback_url`; others are noted."""
    partner = draft.find("partners", to_id(source.take("network_affiliate_id")))
    offer_id, url = to_id(source.take("network_offer_id")), source.take("postback_url", "html_code")
    method, level = source.take("delivery_method"), source.take("pixel_level")
    if partner is None or source.take("pixel_status") not in ("", "active"):
        return
    if not offer_id and method in ("", "postback") and level in ("", "global") and "postback_url" not in partner.fields:
        partner.put("postback_url", _url(partner, url))
    else:
        where = f"offer {offer_id}" if offer_id else level or "all offers"
        partner.note(f"not carried over: {method or 'postback'} for {where}: {url}")
