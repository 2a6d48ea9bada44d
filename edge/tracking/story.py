"""The story of a transaction id in words: what came, what was decided, and why."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from edge.tracking.click_id import ms_of, node_of, worker_of
from edge.tracking.delivery import rules_of
from edge.tracking.postback_story import tell_postback

Row = Mapping[str, Any]
Fact = tuple[str, str]
"""A label, and what clients or we say of it, on one line."""

TOUCH_FACTS = (
    ("offer", "offer_id"),
    ("partner", "aff_id"),
    ("landing page", "landing_page_id"),
    ("creative", "creative_id"),
    ("alias", "alias"),
    ("source", "source"),
    *((f"aff_sub{number}", f"aff_sub{number}") for number in range(1, 6)),
    ("aff_click_id", "aff_click_id"),
    *((f"utm_{name}", f"utm_{name}") for name in ("source", "medium", "campaign", "content", "term")),
    ("contact", "contact_id"),
    ("first click", "first_click_id"),
    ("address", "ip"),
    ("country", "country"),
    ("region", "region"),
    ("city", "city"),
    ("device", "device_type"),
    ("brand", "device_brand"),
    ("system", "os"),
    ("browser", "browser"),
    ("user agent", "user_agent"),
    ("language", "language"),
    ("referrer", "referrer"),
    ("cost", "cost"),
    ("earned", "payout"),
    ("charged", "revenue"),
)
CONVERSION_FACTS = (
    ("goal", "goal_id"),
    ("amount", "amount"),
    ("payout", "payout"),
    ("revenue", "revenue"),
    ("currency", "currency"),
    *((f"adv_sub{number}", f"adv_sub{number}") for number in range(1, 6)),
    ("unique id", "conversion_unique_id"),
    ("promo code", "promo_code"),
    ("contact", "contact_id"),
    ("address", "ip"),
)


_RULE_NOTES = ("requested_offer_id", "rule", "rule_reason")
"""What a worker notes among a click's parameters, and is told in words."""


class Story(Protocol):
    """Rows of the tables, as mappings of column to value."""

    @property
    def click(self) -> Row | None: ...
    @property
    def impression(self) -> Row | None: ...
    @property
    def conversions(self) -> Sequence[Row]: ...
    @property
    def changes(self) -> Sequence[Row]: ...
    @property
    def waiting(self) -> Sequence[Row]: ...
    @property
    def postbacks(self) -> Sequence[Row]: ...
    @property
    def erased_at(self) -> datetime | None: ...


def tell(
    transaction_id: str, click_id: bytes | None, story: Story, refusing_caps: Sequence[str] = ()
) -> Iterator[str]:
    """The story, line by line. `click_id`: the id's bytes, None if it is not one of ours; `refusing_caps`: that the click met."""
    yield from _introduce(transaction_id, click_id, story)
    for name, touch in (("click", story.click), ("impression", story.impression)):
        if touch:
            yield ""
            yield from _tell_touch(name, touch)
            if touch is story.click:
                yield from (f"    {'cap':<13} {one}" for one in refusing_caps)
    if story.erased_at:
        yield f"erased on {_when(story.erased_at)}: what named somebody is gone, and what a journal still holds is not stored"
    elif click_id and not story.click and not story.impression:
        yield "no click of this id is stored: it is forged, on its way (about a second), or was never journalled"
    for number, conversion in enumerate(story.conversions, 1):
        yield ""
        yield from tell_conversion(f"conversion {number}", conversion, story.changes)
        for row in story.postbacks:
            if row["conversion_id"] == conversion["conversion_id"]:
                yield from tell_postback(row)
    for waiting in story.waiting:
        yield ""
        yield (
            f"a conversion of {_when(waiting['received_at'])} waits for {awaited_by(waiting)},"
            f" until {_when(waiting['deadline'])}"
        )
    if not story.conversions and not story.waiting and not story.erased_at:
        yield ""
        yield "no conversion has been received for it"


def awaited_by(waiting: Row) -> str:
    """What a conversion waits for that is not decided yet."""
    return "the one that it takes back" if waiting["is_word"] else "its click"


def _introduce(transaction_id: str, click_id: bytes | None, story: Story) -> Iterator[str]:
    touch = story.click or story.impression
    if touch is not None and touch["click_id"].bytes != click_id:
        yield f"{transaction_id[:64]!a} is another system's id of this click:"
        click_id = touch["click_id"].bytes
    if click_id is None:
        yield f"{transaction_id[:64]!a} is no id of ours: 32 hexadecimal digits, a UUID of version 7"
        return
    minted = datetime.fromtimestamp(ms_of(click_id) / 1000).astimezone()
    yield f"{click_id.hex()}  minted {_when(minted)} by worker {worker_of(click_id)} of node {node_of(click_id)}"


def _tell_touch(name: str, touch: Row) -> Iterator[str]:
    because = f" because {touch['reason']}" if touch["reason"] else ""
    yield f"{name}  {_when(touch['clicked_at'])}  {touch['outcome']}{because}  (catalog revision {touch['catalog_revision']})"
    yield from _lines(touch_facts(touch))


def touch_facts(touch: Row) -> Iterator[Fact]:
    """How a click or impression went its way, and what came with it."""
    yield from way_of(touch)
    yield from facts_of(touch, TOUCH_FACTS)
    if touch["flags"]:
        yield "flags", ", ".join(touch["flags"])


def way_of(touch: Row) -> Iterator[tuple[str, str]]:
    """The offer that was asked for, where another took the click, and each rule that had a say; labels and words."""
    extras = touch["extras"]
    asked = int(extras.get("requested_offer_id", touch["offer_id"]))
    if asked != touch["offer_id"]:
        yield "asked for", f"offer {asked}"
    rules = rules_of(extras.get("rule", ""), asked)
    refusal = extras.get("rule_reason", "")
    for number, (offer_id, position) in enumerate(rules, 1):
        is_last = number == len(rules) and offer_id == touch["offer_id"] and touch["outcome"] == "redirected"
        did = "chose the page" if is_last else "sent the click on or away"
        yield "rule", f"{position} of offer {offer_id} {did}"
    if refusal:
        yield "refused", _shown(refusal)


def tell_conversion(title: str, conversion: Row, changes: Sequence[Row]) -> Iterator[str]:
    """A conversion as it is now, and line by line how it became so."""
    because = f" because {conversion['reason']}" if conversion["reason"] else ""
    yield (
        f"{title}  {_when(conversion['received_at'])}  {conversion['status']}{because}"
        f"  (status code {conversion['status_code']}, by {conversion['via']},"
        f" catalog revision {conversion['catalog_revision']})"
    )
    yield from _lines(conversion_facts(conversion))
    for change in changes:
        if change["conversion_id"] == conversion["conversion_id"]:
            yield f"    {change['kind']:<13} {_when(change['changed_at'])} by {change['actor']}: {change_in_words(change)}"


def conversion_facts(conversion: Row) -> Iterator[Fact]:
    """Whose it is, what it is worth and what came with it."""
    yield "id", str(conversion["conversion_id"])
    yield from _credit_facts(conversion)
    yield from facts_of(conversion, CONVERSION_FACTS)


def change_in_words(change: Row, money: Sequence[str] = ("amount", "payout", "revenue")) -> str:
    """What a change did and why, with those of its sums; a first decision has its explanation only."""
    if change["kind"] == "decided":
        return str(change["note"])
    was = "" if change["kind"] == "adjusted" else f"it was {change['status_before']}"
    because = f"because {change['reason']}" if change["reason"] else ""
    parts = [*filter(None, (was, because))]
    parts += [f"{name} now {change[f'{name}_after']}" for name in money]
    earned = [f"{change[f'{name}_delta']:+}" for name in money]
    parts.append(f"booked {' '.join(earned)} in the hour of {change['booked_hour']:%Y-%m-%d %H:%M}")
    if change["cause_id"]:
        parts.append(f"asked for by conversion {change['cause_id']}")
    return "; ".join(filter(None, (", ".join(parts), _shown(change["note"]))))


def _credit_facts(conversion: Row) -> Iterator[Fact]:
    """Which touch and partner were credited, where that is not simply the click that was named."""
    if conversion["named_click_id"]:
        yield "named", f"{conversion['named_click_id'].hex}, but another touch is credited:"
        yield "credited", conversion["click_id"].hex
    if conversion["aff_id"]:
        yield "partner", str(conversion["aff_id"])


def facts_of(row: Row, facts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What a row says, its extras last; labels and values, each on one line."""
    for label, column in facts:
        value = row[column]
        if value not in (None, "", 0):
            yield label, _shown(value)
    for name, value in sorted(row["extras"].items()):
        if name in _RULE_NOTES and "outcome" in row:
            continue
        yield _shown(name), _shown(value)


def _lines(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for label, value in facts:
        yield f"    {label:<13} {value}"


def _shown(value: object) -> str:
    """What clients sent, on one line and without anything a terminal would obey."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def _when(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds")
