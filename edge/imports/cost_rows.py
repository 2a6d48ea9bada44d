"""A row of a file of costs and sends, and the name of the feed that a file belongs to."""

import re
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from edge.imports.columns import Columns
from edge.imports.values import Calendar, Mark, ValueFault, parse_day, parse_money
from edge.tracking.parameters import clean, to_id

MAX_LIST_CHARS = 256
MAX_SENDS = 10**12
_ENDINGS = re.compile(r"(\.(csv|tsv|txt|gz|rejects))+$", re.IGNORECASE)
# A date, a time behind it, and what browsers add to a file that they load again.
_DATES = re.compile(
    r"[0-9]{4}[-_.]?[0-9]{2}([-_.]?[0-9]{2})?([-_T][0-9]{4,6}(?![0-9]))?|[0-9]{2}[-_.][0-9]{2}[-_.][0-9]{4}|\([0-9]+\)"
)
_MARKS = re.compile(r"[-_.\s]+")


class CostRow(NamedTuple):
    """What a day cost and how much was sent, for one offer, partner, creative and list; 0 and "" for none."""

    line: int
    values: list[str]
    day: date
    offer_id: int
    aff_id: int
    creative_id: int
    list: str
    currency: str
    """"": not said; the offer's is meant."""
    amount: Decimal
    sends: int


def read_cost(line: int, values: list[str], columns: Columns, calendar: Calendar, mark: Mark) -> CostRow:
    """The costs in a row; ValueFault says why there are none."""
    said = columns.values(values)
    money = parse_money(said["amount"], mark) if "amount" in said else None
    if money is None and "sends" not in said:
        raise ValueFault("it has neither an amount nor sends")
    currency = said.get("currency", money.currency if money else "").upper()
    if currency and not (len(currency) == 3 and currency.isalpha() and currency.isascii()):
        raise ValueFault(f"its currency {currency[:40]!r} is no code of three letters")
    mailing = clean(said.get("list", ""))
    if len(mailing) > MAX_LIST_CHARS:
        raise ValueFault(f"its list is longer than {MAX_LIST_CHARS} characters")
    return CostRow(
        line,
        values,
        parse_day(said.get("day", ""), calendar),
        _id("offer_id", said.get("offer_id", "")),
        _id("aff_id", said.get("aff_id", "")),
        _id("creative_id", said.get("creative_id", "")),
        mailing,
        currency,
        money.value if money else Decimal(0),
        _count(said.get("sends", ""), mark),
    )


def feed_of(file_name: str) -> str:
    """The file's name without its ending and without dates: `facebook-2026-11-01.csv` is of the feed `facebook`."""
    name = _DATES.sub("-", _ENDINGS.sub("", clean(file_name)))
    return _MARKS.sub("-", name).strip("-")[:64] or "costs"


def _id(name: str, text: str) -> int:
    """`17`, or the number in brackets of `Holiday decor (17)`; 0 where nothing is said."""
    if not text or text == "0":
        return 0
    number = to_id(text.rpartition("(")[2].rstrip(" )") if text.endswith(")") else text)
    if not number:
        raise ValueFault(f"its {name} {text[:40]!r} is no id")
    return number


def _count(text: str, mark: Mark) -> int:
    if not text:
        return 0
    digits = re.sub(r"(?<=[0-9])[,.\s'](?=[0-9]{3}(?![0-9]))", "", text)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 13 and int(digits) <= MAX_SENDS):
        raise ValueFault(f"its sends {text[:40]!r} are no whole number")
    return int(digits)
