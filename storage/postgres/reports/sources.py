"""The rows that reports can be answered from.

S1  A fact is what one kind of row counts: clicks, views (impressions), changes (of conversions, by the hour in which they
    are booked), credits (conversions by the time of their touch), spends (imported costs).
S2  A component of a source is a sum over some facts at once; it is of use only where a report wants the sum over all of
    them, and each fact of a component is taken from one source only.
S3  A source answers what it has columns for. Whichever of them answers, the figures are the same.

To add one: a `Source` in a module of its own, listed in `SOURCES`. `rank` says which is asked first.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from storage.postgres.reports.dimensions import EXTRA, Dimension, Kind
from storage.postgres.reports.periods import Period

Fact = Literal["clicks", "views", "changes", "credits", "spends"]
Grain = Literal["instant", "hour", "day"]


class Column(NamedTuple):
    """An SQL expression, and the joins that it reads, by their names in the source. `{key}`: an extra's name."""

    sql: str
    joins: tuple[str, ...] = ()


class Component(NamedTuple):
    """A sum (`sql`, an aggregate) over these facts together."""

    facts: frozenset[Fact]
    sql: str


class Need(NamedTuple):
    """What a report asks of its sources. `dimensions`: grouped or filtered by; `facts`: of each component."""

    dimensions: tuple[Dimension, ...]
    facts: Mapping[str, frozenset[Fact]]
    period: Period
    touch: str
    is_comparison: bool = False
    """Of the time before: it may end within a day, whose costs then count whole."""


class Source(NamedTuple):
    """`moment`: the time of a row; a booked hour and a day count where they begin. `ids`: a column that time orders, too."""

    name: str
    rank: int
    table: str
    moment: str
    grain: Grain
    columns: Mapping[str, Column]
    components: Mapping[str, Component]
    ids: str = ""
    joins: Mapping[str, str] = {}
    touches: frozenset[str] = frozenset(("last",))
    extra: Column | None = None
    bounds: Mapping[str, datetime] = {}
    """Times that `table` names as `{name}`."""
    is_cut: bool = False
    """Its table has no rows but the period's: they need not be compared once more, which the planner takes for rare."""
    zone: str = ""
    """Of a source by day: whose days they are; "" for days that are only names, as those of costs."""

    def answers(self, need: Need) -> bool:
        """Whether it knows the need's dimensions and times, exactly."""
        return (
            need.touch in self.touches
            and all(self.has(dimension) for dimension in need.dimensions)
            and (self.grain == "instant" or self._fits(need))
        )

    def has(self, dimension: Dimension) -> bool:
        """Whether its rows can be grouped and filtered by it."""
        return (
            dimension.is_time
            or dimension.name in self.columns
            or (self._is_extra(dimension) and self.extra is not None)
        )

    def column(self, dimension: Dimension) -> Column:
        """The dimension in this source; `{zone}` stands for the report's time zone, `{key}` for an extra's name."""
        if dimension.is_time:
            return Column(_time_column(dimension.kind, self.moment, is_day=self._is_named_day))
        if self._is_extra(dimension) and self.extra is not None:
            return self.extra
        return self.columns[dimension.name]

    @property
    def _is_named_day(self) -> bool:
        return self.grain == "day"

    @staticmethod
    def _is_extra(dimension: Dimension) -> bool:
        return dimension.name.startswith(EXTRA)

    def _fits(self, need: Need) -> bool:
        kinds = {dimension.kind for dimension in need.dimensions}
        if self.grain == "day":
            is_own_zone = self.zone in ("", need.period.timezone)
            is_whole = need.period.is_whole_days or (need.is_comparison and not self.zone)
            return is_own_zone and is_whole and "hour" not in kinds
        is_local = bool(kinds & {"date", "week", "month", "hour"})
        return need.period.is_whole_hours and (not is_local or need.period.has_whole_hour_offsets)


def _time_column(kind: Kind, moment: str, *, is_day: bool) -> str:
    if kind == "hour":
        return f"date_trunc('hour', {moment}, {{zone}})"
    local = f"{moment}::timestamp" if is_day else f"({moment} AT TIME ZONE {{zone}})"
    return f"({local})::date" if kind == "date" else f"date_trunc('{kind}', {local})::date"


CLICKS: frozenset[Fact] = frozenset(("clicks",))
VIEWS: frozenset[Fact] = frozenset(("views",))
CHANGES: frozenset[Fact] = frozenset(("changes",))
CREDITS: frozenset[Fact] = frozenset(("credits",))
SPENDS: frozenset[Fact] = frozenset(("spends",))

_TOUCH_COLUMNS = {
    "landing_page": "landing_page_id",
    "creative": "creative_id",
    "device": "device_type",
    **{
        name: name
        for name in (
            "alias", "source", "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5", "utm_source", "utm_medium",
            "utm_campaign", "utm_content", "utm_term", "country", "region", "city", "os", "browser", "language",
        )
    },
}  # fmt: skip
"""Of a row of `clicks` or `impressions`; the rest of it is below."""
_HOST = "lower(coalesce(substring({0}.referrer FROM '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)'), ''))"
_PERSON = " LEFT JOIN contacts AS person ON person.contact_id = {0}.contact_id AND {0}.contact_id <> ''"
# An offer's advertiser by the catalog of the click's time.
_OWNER = (
    " LEFT JOIN (SELECT id::int AS offer_id, revision_from, revision_to,"
    " (convert_from(body, 'UTF8')::json ->> 'advertiser_id')::int AS advertiser_id"
    " FROM catalog_items WHERE kind = 'offers') AS owner ON owner.offer_id = touch.offer_id"
    " AND touch.catalog_revision >= owner.revision_from"
    " AND (owner.revision_to IS NULL OR touch.catalog_revision < owner.revision_to)"
)


def extra_of(column: Column, key: str, scope: str) -> str:
    """An extra's expression, `key` its name as SQL: a click's extras are its partner's, a conversion's its advertiser's."""
    strangers = {"partner": "conversion.extras", "advertiser": "touch.extras"}.get(scope)
    sql = column.sql.replace(strangers, "'{}'::jsonb") if strangers else column.sql
    return sql.replace("{key}", key)


def touch_columns(alias: str = "touch", *, join: str = "") -> dict[str, Column]:
    """The dimensions that a click's row has under that alias; `join`: the one that brings it, which may find none."""
    joins = (join,) if join else ()

    def column(name: str, nothing: str) -> str:
        return f"coalesce({alias}.{name}, {nothing})" if join else f"{alias}.{name}"

    columns = {
        name: Column(column(one, "0" if one.endswith("_id") else "''"), joins) for name, one in _TOUCH_COLUMNS.items()
    }
    columns["referrer_host"] = Column(_HOST.format(alias), joins)
    columns["list"] = Column(_list_of(alias), (*joins, "person"))
    return columns


def _list_of(alias: str) -> str:
    return f"coalesce(nullif({alias}.extras ->> 'list', ''), person.list, '')"


def person_join(alias: str) -> str:
    """The contact that this alias's row names, as `person`."""
    return _PERSON.format(alias)


_CLICK_MONEY = ("payout", "revenue", "cost")
_INVALID = "touch.flags && '{bot,prefetch,datacentre}'"
_CLICK_COUNTS = {
    "gross_clicks": "count(*)",
    "invalid_clicks": f"count(*) FILTER (WHERE {_INVALID})",
    "unique_clicks": "count(*) FILTER (WHERE NOT touch.flags && '{bot,prefetch,datacentre,duplicate}')",
    "refused_clicks": f"count(*) FILTER (WHERE NOT {_INVALID} AND touch.outcome IN ('fallback', 'rejected'))",
}
OWN_TOUCH = {
    **touch_columns(),
    "offer": Column("touch.offer_id"),
    "partner": Column("touch.aff_id"),
    "contact": Column("touch.contact_id"),
    "currency": Column("touch.currency"),
    "advertiser": Column("coalesce(owner.advertiser_id, 0)", ("owner",)),
    "goal": Column("0"),
    "status": Column("''"),
    "promo_code": Column("''"),
}
TOUCH_JOINS = {"owner": _OWNER, "person": person_join("touch")}


def touch_components(facts: frozenset[Fact], counts: Mapping[str, str]) -> dict[str, Component]:
    """What rows of `clicks` or `impressions` add up to: these counts, and what they earn and cost."""
    money = {name: f"sum(touch.{name})" for name in _CLICK_MONEY}
    return {name: Component(facts, sql) for name, sql in {**counts, **money}.items()}


def _touch_source(name: str, rank: int, facts: frozenset[Fact], counts: Mapping[str, str]) -> Source:
    return Source(
        name=name,
        rank=rank,
        table=f"{name} AS touch",
        moment="touch.clicked_at",
        grain="instant",
        ids="touch.click_id",
        columns=OWN_TOUCH,
        components=touch_components(facts, counts),
        joins=TOUCH_JOINS,
        extra=Column("coalesce(touch.extras ->> {key}, '')"),
    )


_HOURLY_COLUMNS = {
    "advertiser": Column("hourly.advertiser_id"),
    "offer": Column("hourly.offer_id"),
    "partner": Column("hourly.aff_id"),
    "goal": Column("hourly.goal_id"),
    "landing_page": Column("hourly.landing_page_id"),
    "creative": Column("hourly.creative_id"),
    "country": Column("hourly.country"),
    "device": Column("hourly.device_type"),
    "currency": Column("hourly.currency"),
}
_ALL_ROWS = CLICKS | VIEWS | CHANGES
HOURLY_COMPONENTS: dict[str, frozenset[Fact]] = {
    "impressions": VIEWS,
    **dict.fromkeys(("gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks"), CLICKS),
    **dict.fromkeys(("conversions", "pending", "rejected", "reversed", "amount"), CHANGES),
    **dict.fromkeys(("payout", "revenue"), _ALL_ROWS),
    "cost": CLICKS | VIEWS,
}
"""What a roll-up's row holds, as the drain books it."""

HOURLY = Source(
    name="stats_hourly",
    rank=20,
    table="stats_hourly AS hourly",
    moment="hourly.hour",
    grain="hour",
    columns=_HOURLY_COLUMNS,
    components={name: Component(facts, f"sum(hourly.{name})") for name, facts in HOURLY_COMPONENTS.items()},
)
# By click date nobody wants what changes booked: the roll-ups less the changes are what the clicks themselves earned.
_EARNED = (
    "(SELECT hour, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type, currency,"
    " payout, revenue FROM stats_hourly UNION ALL"
    " SELECT booked_hour, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type,"
    " currency, -payout_delta, -revenue_delta FROM conversion_changes JOIN conversions USING (conversion_id)) AS hourly"
)
EARNED = HOURLY._replace(
    name="stats_hourly less conversion_changes",
    rank=30,
    table=_EARNED,
    components={name: Component(CLICKS | VIEWS, f"sum(hourly.{name})") for name in ("payout", "revenue")},
)
CLICK_ROWS = _touch_source("clicks", 70, CLICKS, _CLICK_COUNTS)
VIEW_ROWS = _touch_source("impressions", 70, VIEWS, {"impressions": "count(*)"})
COST_ROWS = Source(
    name="costs",
    rank=10,
    table="costs AS spend",
    moment="spend.day",
    grain="day",
    columns={
        "offer": Column("spend.offer_id"),
        "partner": Column("spend.aff_id"),
        "creative": Column("spend.creative_id"),
        "list": Column("spend.list"),
        "currency": Column("spend.currency"),
        "advertiser": Column("coalesce(owner.advertiser_id, 0)", ("owner",)),
    },
    components={"cost": Component(SPENDS, "sum(spend.amount)"), "sends": Component(SPENDS, "sum(spend.sends)")},
    joins={
        # An offer's last one: what is archived has cost what it did.
        "owner": " LEFT JOIN (SELECT offer_id, (convert_from(body, 'UTF8')::json ->> 'advertiser_id')::int AS advertiser_id"
        " FROM (SELECT DISTINCT ON (id) id::int AS offer_id, body FROM catalog_items WHERE kind = 'offers'"
        " ORDER BY id, revision_from DESC) AS latest) AS owner ON owner.offer_id = spend.offer_id"
    },
)
