"""What a catalog file would change, as bodies to store and as lines to read."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any, get_args

import msgspec

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import TABLES, Alias, Item, Offer, Part, Partner, When, decode_item, encode_item
from edge.tracking.catalog_fields import Check
from edge.tracking.catalog_file import Document
from edge.tracking.macros import find_unknown_macros


class ItemChange(msgspec.Struct, frozen=True):
    """One item, before and after: no `before`: new; no `after`: archived. `body`: what is to be stored."""

    kind: str
    item_id: str
    before: Item | None
    after: Item | None
    body: bytes | None


def find_changes(document: Document, existing: Catalog, *, prune: bool) -> Iterator[ItemChange]:
    """What the file changes; with `prune` also the end of what it does not name. Nothing for an item that is the same."""
    for kind, item_id, item in document.items():
        body = encode_item(item)
        stored = existing.bodies(kind).get(item_id)
        if body == stored:
            continue
        before = decode_item(kind, stored) if stored is not None else None
        # Written otherwise ("5.0" for "5.00"), or before a field had its default: still the same.
        if before != item:
            yield ItemChange(kind, item_id, before, item, body)
    for kind in TABLES if prune else ():
        for item_id, stored in existing.bodies(kind).items():
            if item_id not in getattr(document, kind):
                yield ItemChange(kind, item_id, decode_item(kind, stored), None, None)


def describe(change: ItemChange) -> Iterator[str]:
    """One line for an item that comes (`+`) or goes (`-`), one for each field that changes (`~`). No secret is shown."""
    where = f"{change.kind}[{change.item_id}]"
    if change.before is None or change.after is None:
        sign, item = ("+", change.after) if change.after else ("-", change.before)
        yield f"{sign} {where} {item.kind if isinstance(item, Alias) else item.name if item else ''}"
    else:
        yield from _describe_table(where, change.before, change.after)


def _describe_table(where: str, before: Part, after: Part) -> Iterator[str]:
    for field in msgspec.structs.fields(after):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        place = f"{where}.{field.encode_name}"
        if isinstance(new, Part):
            yield from _describe_table(place, old, new)
        elif _is_list_of_tables(new) or _is_list_of_tables(old):
            yield from _describe_list(place, old, new)
        elif field.name in secret_fields(type(after)):
            yield f"~ {place}: changed"
        else:
            yield f"~ {place}: {_show(old)} -> {_show(new)}"


def _describe_list(where: str, before: tuple[Part, ...], after: tuple[Part, ...]) -> Iterator[str]:
    old, new = _by_label(before), _by_label(after)
    if set(old) == set(new) and all(old[label] == new[label] for label in new):
        yield f"~ {where}: in another order"
    for label in old:
        if label not in new:
            yield f"- {where}[{label}]"
    for label, part in new.items():
        if label not in old:
            yield f"+ {where}[{label}]"
        elif old[label] != part:
            yield from _describe_table(f"{where}[{label}]", old[label], part)


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Part)


def _by_label(parts: Iterable[Part]) -> dict[str, Part]:
    return {
        ",".join(str(getattr(part, name)) for name in part.key) or f"#{position}": part
        for position, part in enumerate(parts, 1)
    }


@cache
def secret_fields(struct: type[Part]) -> frozenset[str]:
    """The attributes of a table that are never shown."""
    return frozenset(
        field.name
        for field in msgspec.structs.fields(struct)
        if any(isinstance(one, Check) and one.is_secret for one in get_args(field.type))
    )


def _show(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None or value == "" else str(value)


def find_warnings(document: Document) -> list[str]:
    """What the file asks for that will have no effect."""
    warnings: list[str] = []
    for offer in document.offers.values():
        urls = [
            ("url", offer.url),
            *((f"landing_pages[{page.id}].url", page.url) for page in offer.landing_pages),
            *((f"rules[#{position}].then.url", rule.then.url) for position, rule in enumerate(offer.rules, 1)),
        ]
        for field, url in urls:
            warnings.extend(
                f"offers[{offer.id}].{field}: nobody knows the macro {{{name}}}: it expands to nothing"
                for name in find_unknown_macros(url)
            )
        warnings.extend(_warn_of_rules(offer))
    return [*warnings, *_warn_of_postbacks(document.partners.values())]


def find_long_windows(document: Document, kept_s: int) -> list[str]:
    """Offers whose conversions may come when their click is not stored any more. `kept_s`: EDGE_CLICK_RETENTION."""
    return [
        f"offers[{offer.id}].{field}: is longer than EDGE_CLICK_RETENTION keeps clicks ({kept_s // 86400} days):"
        " later conversions find none"
        for offer in document.offers.values()
        for field, window_s in (("click_window", offer.click_window_s), ("impression_window", offer.impression_window_s))
        if window_s > kept_s
    ]


def _warn_of_postbacks(partners: Iterable[Partner]) -> Iterator[str]:
    """Macros that will not do what their author means."""
    for partner in partners:
        urls = [("postback_url", partner.postback_url)]
        urls += [(f"postbacks[#{place}].url", postback.url) for place, postback in enumerate(partner.postbacks, 1)]
        for field, url in urls:
            for name in find_unknown_macros(url):
                yield f"partners[{partner.id}].{field}: nobody knows the macro {{{name}}}: it expands to nothing"
            if "{revenue}" in url:
                yield f"partners[{partner.id}].{field}: {{revenue}} tells the partner what you earn"


def _warn_of_rules(offer: Offer) -> Iterator[str]:
    """A rule that is for every click leaves none to those behind it."""
    for_all = next((position for position, rule in enumerate(offer.rules, 1) if rule.when == When()), 0)
    if 0 < for_all < len(offer.rules):
        yield (
            f"offers[{offer.id}].rules[#{for_all + 1}]: is never asked, nor any after it: "
            f"rule #{for_all} matches every click"
        )
