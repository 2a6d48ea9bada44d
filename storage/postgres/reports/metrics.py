"""The figures that reports show: one table with their formulas, for the code, the API's documentation and the console.

A metric is made of sums only: `scale` x (plus - minus) / over. So a total's ratio is that of the total's sums, never an
average; division by nothing is NULL. `clicks` stands for the clicks that the report counts by, `earnings` for what earns
whoever looks.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from storage.postgres.reports.viewer import EVERYBODY, NETWORK, Scope, Viewer

Unit = Literal["count", "money", "percent", "ratio"]
Clicks = Literal["valid", "gross", "unique"]
CLICKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "valid": (("gross_clicks",), ("invalid_clicks",)),
    "gross": (("gross_clicks",), ()),
    "unique": (("unique_clicks",), ()),
}
"""Which sums make `clicks`: plus, minus."""
COMPONENTS = (
    "impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "conversions", "pending",
    "rejected", "reversed", "amount", "payout", "revenue", "cost", "sends",
)  # fmt: skip
MONEY = frozenset(("amount", "payout", "revenue", "cost"))
_NOT_ADVERTISER: tuple[Scope, ...] = ("admin", "reports", "partner")
_NOT_PARTNER: tuple[Scope, ...] = ("admin", "reports", "advertiser")


class Metric(NamedTuple):
    """`formula`: in words, its denominator named; `clicks` in it stands for the counted ones."""

    name: str
    label: str
    unit: Unit
    formula: str
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    scale: int = 1
    scopes: tuple[Scope, ...] = EVERYBODY

    @property
    def is_ratio(self) -> bool:
        return bool(self.over)


def _count(name: str, label: str, formula: str, *, plus: tuple[str, ...] = (), minus: tuple[str, ...] = ()) -> Metric:
    return Metric(name, label, "count", formula, plus or (name,), minus)


def _sum(name: str, label: str, formula: str, scopes: tuple[Scope, ...]) -> Metric:
    return Metric(name, label, "money", formula, (name,), scopes=scopes)


_PROFIT = ("revenue",), ("payout",)
_NET_PROFIT = ("revenue",), ("payout", "cost")
_TABLE = (
    _count("impressions", "Impressions", "ads shown"),
    _count("clicks", "Clicks", "the clicks that ratios count by: valid, gross or unique ones"),
    _count("gross_clicks", "Gross clicks", "all clicks"),
    _count("unique_clicks", "Unique clicks", "valid clicks that are no duplicates"),
    _count("invalid_clicks", "Invalid clicks", "clicks of bots, prefetches and data centres"),
    _count(
        "duplicate_clicks",
        "Duplicate clicks",
        "gross clicks - invalid clicks - unique clicks",
        plus=("gross_clicks",),
        minus=("invalid_clicks", "unique_clicks"),
    ),
    _count("refused_clicks", "Refused clicks", "valid clicks that no offer took"),
    _count("conversions", "Conversions", "approved conversions"),
    _count("pending", "Pending", "conversions that wait for approval"),
    _count("rejected", "Rejected", "rejected conversions"),
    _count("reversed", "Reversed", "conversions that were approved and taken back"),
    Metric("ctr", "CTR", "percent", "clicks / impressions x 100", ("clicks",), (), ("impressions",), 100),
    Metric("cr", "CR", "percent", "conversions / clicks x 100", ("conversions",), (), ("clicks",), 100),
    _sum("amount", "Amount", "what buyers paid, of approved conversions", EVERYBODY),
    _sum("revenue", "Revenue", "what advertisers pay", _NOT_PARTNER),
    _sum("payout", "Payout", "what partners earn", _NOT_ADVERTISER),
    _sum("cost", "Cost", "what clicks said they cost, and imported costs", NETWORK),
    Metric("profit", "Profit", "money", "revenue - payout", *_PROFIT, scopes=NETWORK),
    Metric("net_profit", "Net profit", "money", "revenue - payout - cost", *_NET_PROFIT, scopes=NETWORK),
    Metric("margin", "Margin", "percent", "profit / revenue x 100", *_PROFIT, ("revenue",), 100, NETWORK),
    Metric("epc", "EPC", "money", "earnings / clicks", ("earnings",), (), ("clicks",)),
    Metric("rpc", "RPC", "money", "revenue / clicks", ("revenue",), (), ("clicks",), scopes=_NOT_PARTNER),
    Metric("cpc", "CPC", "money", "payout / clicks", ("payout",), (), ("clicks",), scopes=_NOT_ADVERTISER),
    Metric("rpa", "RPA", "money", "revenue / conversions", ("revenue",), (), ("conversions",), scopes=_NOT_PARTNER),
    Metric("cpa", "CPA", "money", "payout / conversions", ("payout",), (), ("conversions",), scopes=_NOT_ADVERTISER),
    Metric("aov", "AOV", "money", "amount / conversions", ("amount",), (), ("conversions",)),
    Metric("roi", "ROI", "percent", "net profit / (payout + cost) x 100", *_NET_PROFIT, ("payout", "cost"), 100, NETWORK),
    Metric("roas", "ROAS", "ratio", "revenue / cost", ("revenue",), (), ("cost",), scopes=NETWORK),
    Metric(
        "rpm", "RPM", "money", "revenue / impressions x 1000", ("revenue",), (), ("impressions",), 1000, _NOT_PARTNER
    ),
    Metric(
        "cpm", "CPM", "money", "payout / impressions x 1000", ("payout",), (), ("impressions",), 1000, _NOT_ADVERTISER
    ),
    Metric("sends", "Sends", "count", "messages sent", ("sends",), scopes=NETWORK),
    Metric(
        "revenue_per_send", "Revenue per send", "money", "revenue / sends", ("revenue",), (), ("sends",), scopes=NETWORK
    ),
    Metric("cost_per_send", "Cost per send", "money", "cost / sends", ("cost",), (), ("sends",), scopes=NETWORK),
)
METRICS: dict[str, Metric] = {one.name: one for one in _TABLE}
DEFAULT_METRICS = ("gross_clicks", "clicks", "conversions", "cr", "revenue", "payout", "profit", "epc")


def components_of(metrics: Iterable[Metric], viewer: Viewer, clicks: str) -> list[str]:
    """The sums that these metrics are made of, in the order of `COMPONENTS`."""
    wanted: set[str] = set()
    for metric in metrics:
        for name in (*metric.plus, *metric.minus, *metric.over):
            plus, minus = _sums(name, viewer, clicks)
            wanted.update(plus, minus)
    return [name for name in COMPONENTS if name in wanted]


def expression(metric: Metric, viewer: Viewer, clicks: str, columns: Mapping[str, str]) -> str:
    """The metric in SQL; `columns`: the expression of each sum. Ratios are rounded to 6 places."""
    top = _linear(metric.plus, metric.minus, viewer, clicks, columns)
    if not metric.is_ratio:
        return top
    return (
        f"round({metric.scale} * ({top})::numeric / nullif({_linear(metric.over, (), viewer, clicks, columns)}, 0), 6)"
    )


def describe(metric: Metric, viewer: Viewer, clicks: str) -> str:
    """The formula with the counted clicks and the viewer's earnings by their names."""
    words = {"clicks": f"{clicks} clicks", "earnings": viewer.earnings}
    if metric.name == "clicks":
        return words["clicks"]
    return " ".join(words.get(word, word) for word in metric.formula.split(" ")) if metric.is_ratio else metric.formula


def header(metric: Metric, clicks: str) -> str:
    """Its label, with the denominator where that is a choice."""
    if metric.name == "clicks":
        return f"Clicks ({clicks})"
    return f"{metric.label} (per {clicks} click)" if "clicks" in metric.over else metric.label


def _sums(name: str, viewer: Viewer, clicks: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if name == "clicks":
        return CLICKS[clicks]
    return ((viewer.earnings,) if name == "earnings" else (name,)), ()


def _linear(plus: Iterable[str], minus: Iterable[str], viewer: Viewer, clicks: str, columns: Mapping[str, str]) -> str:
    added, taken = [], []
    for name in plus:
        more, less = _sums(name, viewer, clicks)
        added += [columns[one] for one in more]
        taken += [columns[one] for one in less]
    taken += [columns[one] for one in minus]
    return "(" + " + ".join(added) + "".join(f" - {one}" for one in taken) + ")"
