"""What a replay comes to: each offer's and partner's figures as they are, as they would be, and the difference."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, Protocol

from edge.tracking.payouts import ZERO, Money


class Place(NamedTuple):
    """Whose figures; money of several currencies is never added."""

    offer_id: int
    aff_id: int
    currency: str


class ConversionState(Protocol):
    """What is counted of a conversion."""

    @property
    def offer_id(self) -> int: ...
    @property
    def aff_id(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def amount(self) -> Decimal: ...
    @property
    def payout(self) -> Decimal: ...
    @property
    def revenue(self) -> Decimal: ...


@dataclass(slots=True)
class Figures:
    """Counts by kind, money of what is approved and of clicks."""

    conversions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By status and reason."""
    clicks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By outcome and reason."""
    amount: Decimal = ZERO
    payout: Decimal = ZERO
    revenue: Decimal = ZERO
    erased: int = 0
    """Of the conversions those of which too little is left to be decided: they are what they are on both sides."""

    def add(self, other: "Figures", sign: int = 1) -> None:
        """Add, or with -1 take away."""
        for mine, others in ((self.conversions, other.conversions), (self.clicks, other.clicks)):
            for kind, count in others.items():
                mine[kind] += sign * count
        self.amount += sign * other.amount
        self.payout += sign * other.payout
        self.revenue += sign * other.revenue
        self.erased += sign * other.erased

    def has_any(self) -> bool:
        """Whether anything in it is not zero."""
        counts = (*self.conversions.values(), *self.clicks.values())
        return any(counts) or bool(self.amount or self.payout or self.revenue)


class Compared(NamedTuple):
    """One place before and after."""

    place: Place
    before: Figures
    after: Figures

    @property
    def difference(self) -> Figures:
        """After without before."""
        found = Figures()
        found.add(self.after)
        found.add(self.before, -1)
        return found


class Tally:
    """Both sides of a replay, by place."""

    def __init__(self) -> None:
        self._sides: tuple[dict[Place, Figures], dict[Place, Figures]] = (defaultdict(Figures), defaultdict(Figures))

    def count_before(self, one: ConversionState) -> None:
        """A conversion as it is."""
        _count(self._sides[0], one, 1)

    def count_after(self, before: ConversionState | None, after: ConversionState) -> None:
        """A conversion as the replay has it; `before`: what was counted of it until now."""
        if before is not None:
            _count(self._sides[1], before, -1)
        _count(self._sides[1], after, 1)

    def count_erased(self, one: ConversionState) -> None:
        """One that nothing can be said about but what it is."""
        for side in self._sides:
            _count(side, one, 1)
            side[_place(one)].erased += 1

    def count_clicks(self, place: Place, kind: tuple[str, str], count: int, earned: Money, *, is_after: bool) -> None:
        """So many clicks of that outcome and reason, and what they earned."""
        figures = self._sides[is_after][place]
        figures.clicks[kind] += count
        figures.payout += earned.payout
        figures.revenue += earned.revenue

    def compare(self, offer_ids: frozenset[int], aff_ids: frozenset[int]) -> Iterator[Compared]:
        """Every place of these offers and partners (empty: of all) in order."""
        for place in sorted(self._sides[0].keys() | self._sides[1].keys()):
            if (not offer_ids or place.offer_id in offer_ids) and (not aff_ids or place.aff_id in aff_ids):
                yield Compared(place, *(side.get(place, Figures()) for side in self._sides))


def total(compared: list[Compared]) -> list[Compared]:
    """The sum of each currency, as a place of no offer and partner."""
    sums: dict[str, Compared] = {}
    for one in compared:
        currency = one.place.currency
        found = sums.setdefault(currency, Compared(Place(0, 0, currency), Figures(), Figures()))
        found.before.add(one.before)
        found.after.add(one.after)
    return [sums[currency] for currency in sorted(sums)]


def _count(side: dict[Place, Figures], one: ConversionState, sign: int) -> None:
    figures = side[_place(one)]
    figures.conversions[one.status, one.reason] += sign
    if one.status == "approved":
        figures.amount += sign * one.amount
        figures.payout += sign * one.payout
        figures.revenue += sign * one.revenue


def _place(one: ConversionState) -> Place:
    return Place(one.offer_id, one.aff_id, one.currency)
