"""A row of a file of conversions: what it says, whichever vendor's file it is."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from edge.imports.click_rows import MAX_VALUE_CHARS
from edge.imports.columns import Columns
from edge.imports.values import Calendar, Mark, Span, ValueFault, parse_money, parse_when
from edge.tracking.parameters import clean, to_id
from edge.tracking.status_codes import Status

_WORDS: dict[Status, str] = {
    "approved": "approved accepted confirmed paid locked complete completed valid success sale converted",
    "pending": "pending hold on_hold open new under_review",
    "rejected": "rejected declined invalid throttled duplicate cancelled canceled denied",
    "reversed": "reversed returned refunded refund chargeback charge_back voided",
}
STATUSES: dict[str, Status] = {word: status for status, words in _WORDS.items() for word in words.split()}
_BASE_GOALS = frozenset(("base", "base conversion", "default"))
_ASIDE = frozenset(("transaction_id", "datetime", "amount", "currency", "status", "goal_id", "goal_name", "offer_id"))


class SaleRow(NamedTuple):
    """A conversion as a file tells it. `ids`: what may be a click id of ours, the one in its own column first."""

    line: int
    values: list[str]
    """The row itself, for the rejects."""
    ids: tuple[str, ...]
    has_own_id: bool
    """Whether the first of `ids` stands in the column of the transaction id: only that may be another system's."""
    when: Span
    amount: Decimal | None
    currency: str
    status: Status | None
    goal_id: str
    goal_name: str
    offer_id: int
    params: dict[str, str]
    """The conversion's other parameters: `conversion_unique_id`, `adv_unique1`, `aff_id`, `contact_id`, …"""

    @property
    def unique_id(self) -> str:
        return self.params.get("conversion_unique_id", "")

    @property
    def order_id(self) -> str:
        return self.params.get("adv_unique1", "")


def read_sale(line: int, values: list[str], columns: Columns, calendar: Calendar, mark: Mark) -> SaleRow:
    """The conversion in a row; ValueFault says why there is none."""
    said = {field: _cleaned(field, text) for field, text in columns.values(values).items()}
    get = said.get
    money = parse_money(said["amount"], mark) if get("amount") else None
    return SaleRow(
        line,
        values,
        _ids(values, columns, get("transaction_id", "")),
        bool(get("transaction_id")),
        parse_when(get("datetime", ""), calendar),
        money.value if money else None,
        (get("currency") or (money.currency if money else "")).upper(),
        _status(get("status", "")),
        get("goal_id", ""),
        "" if get("goal_name", "").lower() in _BASE_GOALS else get("goal_name", ""),
        _id_in(get("offer_id", "")),
        _params(said, mark),
    )


def _cleaned(field: str, text: str) -> str:
    if len(text) > MAX_VALUE_CHARS:
        raise ValueFault(f"its {field} is longer than {MAX_VALUE_CHARS} characters")
    return clean(text).strip()


def _params(said: Mapping[str, str], mark: Mark) -> dict[str, str]:
    params = {field: text for field, text in said.items() if field not in _ASIDE and text}
    for field in ("payout", "revenue"):
        if field in params:
            params[field] = f"{parse_money(params[field], mark).value:f}"
    if "aff_id" in params:
        params["aff_id"] = str(_id_in(params["aff_id"]))
    return params


def _ids(values: Sequence[str], columns: Columns, own: str) -> tuple[str, ...]:
    others = (values[place].strip() for place in columns.ours if place < len(values))
    return tuple(dict.fromkeys(text for text in (own, *others) if text and len(text) <= 64))


def _status(text: str) -> Status | None:
    if not text:
        return None
    status = STATUSES.get(text.lower().replace(" ", "_").replace("-", "_"))
    if status is None:
        raise ValueFault(f"its status {text[:40]!r} is none of {', '.join(_WORDS)}, nor another word for one of them")
    return status


def _id_in(text: str) -> int:
    """`17`, or the number in brackets of `Holiday decor (17)`; 0 for anything else."""
    inside = text.rpartition("(")[2].rstrip(" )") if text.endswith(")") else text
    return to_id(inside)
