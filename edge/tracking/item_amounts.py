"""The amount of an order whose sender lists what was bought and leaves the adding up to us."""

from collections.abc import Mapping
from decimal import Context, Decimal
from functools import reduce

from edge.tracking.payouts import ZERO, parse_amount
from edge.tracking.vendors.row import Items

MAX_ITEMS = 100
_ONE = "1"
# Two factors of 18 digits, a hundred times; the thread's own context, 28 digits, would round on the way.
_EXACT = Context(prec=60)


def total(sent: Mapping[str, str], items: Items) -> str:
    """The sum without the discount as plain text; "" without items; what is no amount stays as sent, to be refused."""
    terms: list[Decimal] = []
    for number in range(1, MAX_ITEMS + 1):
        subtotal = next((sent[name] for one in items.subtotals if (name := f"{one}{number}") in sent), "")
        texts = [subtotal] if subtotal else [sent.get(f"{items.price}{number}", "")]
        if not texts[0]:
            break
        if not subtotal:
            texts.append(sent.get(f"{items.quantity}{number}", _ONE))
        parsed = [parse_amount(text) for text in texts]
        bad = next((text for text, value in zip(texts, parsed, strict=True) if value is None), "")
        if bad:
            return bad
        terms.append(_product(parsed))
    return _less(reduce(_EXACT.add, terms), sent.get(items.discount, "")) if terms else ""


def _product(factors: list[Decimal | None]) -> Decimal:
    return reduce(_EXACT.multiply, (factor or ZERO for factor in factors))


def _less(amount: Decimal, discount: str) -> str:
    if not discount:
        return f"{amount:f}"
    off = parse_amount(discount)
    return discount if off is None else f"{_EXACT.subtract(amount, off):f}"
