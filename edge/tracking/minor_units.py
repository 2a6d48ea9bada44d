"""Amounts in a currency's smallest unit (cents) into plain decimals: exact, by moving the point in the text."""

from edge.tracking.payouts import parse_amount

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
