"""What a click, an impression or a conversion earns. Decimal throughout, exact, rounded once at the end."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple, Protocol

ZERO = Decimal(0)
MONEY_LIMIT = Decimal(10) ** 12
"""numeric(18,6) holds less than this."""

_MICRO = Decimal("0.000001")
# 18 digits of amount times 18 of percentage fit; the thread's own context, 28 digits, would round on the way.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_AMOUNT = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?|\.[0-9]{1,6})\Z")


class Terms(Protocol):
    """The money terms of one offer, goal and partner, as the catalog resolves them."""

    @property
    def payout_type(self) -> str: ...
    @property
    def payout(self) -> Decimal: ...
    @property
    def payout_percent(self) -> Decimal: ...
    @property
    def revenue_type(self) -> str: ...
    @property
    def revenue(self) -> Decimal: ...
    @property
    def revenue_percent(self) -> Decimal: ...


class Money(NamedTuple):
    """What the partner earns and what the advertiser pays, six decimals."""

    payout: Decimal
    revenue: Decimal


def parse_amount(text: str) -> Decimal | None:
    """A plain ASCII decimal, at most 12 digits before the point and 6 after it; None for anything else."""
    return Decimal(text) if _AMOUNT.match(text) else None


def round_money(value: Decimal) -> Decimal:
    """Six decimals, half-even."""
    return value.quantize(_MICRO, context=_EXACT)


def conversion_money(terms: Terms, amount: Decimal) -> Money:
    """What one conversion of `amount` earns; nothing under cpc and cpm, which earn on clicks and impressions."""
    return Money(
        _conversion_share(terms.payout_type, terms.payout, terms.payout_percent, amount),
        _conversion_share(terms.revenue_type, terms.revenue, terms.revenue_percent, amount),
    )


def click_money(terms: Terms) -> Money:
    """What one unique click earns: the rate under cpc."""
    return Money(
        round_money(terms.payout if terms.payout_type == "cpc" else ZERO),
        round_money(terms.revenue if terms.revenue_type == "cpc" else ZERO),
    )


def impression_money(terms: Terms) -> Money:
    """What one impression earns: a thousandth of the rate under cpm."""
    return Money(
        round_money(_EXACT.divide(terms.payout, Decimal(1000)) if terms.payout_type == "cpm" else ZERO),
        round_money(_EXACT.divide(terms.revenue, Decimal(1000)) if terms.revenue_type == "cpm" else ZERO),
    )


def uses_percentage(terms: Terms) -> bool:
    """Whether what a conversion earns depends on its amount."""
    return (terms.payout_type in ("cpa_percentage", "cpa_both") and terms.payout_percent > 0) or (
        terms.revenue_type in ("cpa_percentage", "cpa_both") and terms.revenue_percent > 0
    )


def _conversion_share(kind: str, flat: Decimal, percent: Decimal, amount: Decimal) -> Decimal:
    share = flat if kind in ("cpa_flat", "cpa_both") else ZERO
    if kind in ("cpa_percentage", "cpa_both"):
        share = _EXACT.add(share, _EXACT.multiply(amount, _EXACT.divide(percent, Decimal(100))))
    return round_money(share)
