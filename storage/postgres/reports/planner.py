"""Which sources answer a report: for each component the cheapest that knows all its dimensions."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from storage.postgres.reports.conversion_sources import CHANGE_ROWS, CREDIT_ROWS
from storage.postgres.reports.dimensions import FIRST_TOUCH, SPREAD, Dimension
from storage.postgres.reports.sources import CLICK_ROWS, COST_ROWS, EARNED, HOURLY, VIEW_ROWS, Fact, Need, Source
from storage.postgres.reports.touches import TOUCH_SOURCES

SOURCES: tuple[Source, ...] = (
    HOURLY,
    EARNED,
    CHANGE_ROWS,
    CREDIT_ROWS,
    CLICK_ROWS,
    VIEW_ROWS,
    COST_ROWS,
    *TOUCH_SOURCES,
)
_ROWS: frozenset[Fact] = frozenset(("clicks", "views"))


class Step(NamedTuple):
    """A source and the components that it answers."""

    source: Source
    components: tuple[str, ...]


def facts_of(component: str, by: str) -> frozenset[Fact]:
    """What is added up in it."""
    conversions: frozenset[Fact] = frozenset(("changes",) if by == "conversion" else ("credits",))
    if component == "impressions":
        return frozenset(("views",))
    if component.endswith("_clicks"):
        return frozenset(("clicks",))
    if component == "sends":
        return frozenset(("spends",))
    if component == "cost":
        return _ROWS | {"spends"}
    return conversions | _ROWS if component in ("payout", "revenue") else conversions


def effective_touch(touch: str, dimensions: Iterable[Dimension]) -> str:
    """`last` where the choice changes nothing, so that every source may answer."""
    affected = FIRST_TOUCH if touch == "first" else SPREAD
    is_affected = any(
        one.name in affected or (touch != "first" and one.name.startswith("extra.")) for one in dimensions
    )
    return touch if is_affected else "last"


def make_plan(need: Need, sources: Sequence[Source] = SOURCES) -> tuple[list[Step], dict[str, frozenset[Fact]]]:
    """The steps, and what no source can answer: facts by component."""
    wanted = {component: set(facts) for component, facts in need.facts.items()}
    steps = []
    for source in sorted(sources, key=lambda one: one.rank):
        taken = tuple(name for name, part in source.components.items() if name in wanted and part.facts <= wanted[name])
        if taken and source.answers(need):
            for name in taken:
                wanted[name] -= source.components[name].facts
            steps.append(Step(source, taken))
    return steps, {name: frozenset(facts) for name, facts in wanted.items() if facts}
