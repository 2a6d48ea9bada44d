"""Amounts in a currency's smallest unit (cents) into plain decimals: exact, by moving the point in the text."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

from edge.tracking.payouts import ZERO, parse_amount

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)

_NONE = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF")
)  # fmt: skip
_THREE = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))


def digits_of(currency: str) -> int:
    """Decimals of the currency as ISO 4217 has them; 2 for one that it does not know."""
    code = currency.upper()
    return 0 if code in _NONE else 3 if code in _THREE else 2


def to_decimal(amount: str, currency: str) -> str:
    """`4999` cents as `49.99`; what is no row of digits stays what it is, and no amount, for the verdict to refuse."""
    if not (amount.isascii() and amount.isdigit()):
        return amount if parse_amount(amount) is None else f"{amount} in smallest units"
    digits = digits_of(currency)
    if not digits:
        return amount
    padded = amount.zfill(digits + 1)
    return f"{padded[:-digits]}.{padded[-digits:]}"


def round_to_unit(value: Decimal, currency: str) -> Decimal:
    """Half-even to the currency's smallest unit, with all of its decimals; a zero has no sign."""
    return value.quantize(Decimal(1).scaleb(-digits_of(currency)), context=_EXACT) + ZERO
