"""The model: what each part is used at a rate, where it saturates, and what has to be bought.

A rate is of clicks per second at the peak; conversions come on top as a share of it. A drain works alone: it makes the
rows, then waits for PostgreSQL, so its time for a batch is the sum of both.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from benchmarks.capacity.figures import Figures

RATES_PER_S = (10_000, 100_000, 1_000_000, 10_000_000)
MAX_PARTITIONS = 256
HOURS_A_MONTH = 730
GB = 1e9


class Costs(NamedTuple):
    """Microseconds per click, its share of conversions included."""

    worker: float
    shipper: float
    leader: float
    follower: float
    stream: float
    """Of the stream's own turn: its leader takes one message after the other."""
    drain: float
    postgres: float
    sums: float

    @property
    def batch(self) -> float:
        """Of a drain's time: its own and PostgreSQL's."""
        return self.drain + self.postgres


class Layout(NamedTuple):
    """How many of each there are."""

    edges: int
    workers: int
    """Of each edge."""
    drains: int
    postgres_cores: int
    unique_hours: float


def costs(figures: Figures) -> Costs:
    """What a click costs, with its share of a conversion."""
    share = figures.conversions_per_click
    events = 1 + share
    return Costs(
        worker=figures.worker_us_per_click + share * figures.worker_us_per_conversion,
        shipper=figures.shipper_us_per_click * events,
        leader=figures.nats_leader_us_per_click * events,
        follower=figures.nats_follower_us_per_click * events,
        stream=1e6 / figures.stream_events_per_s * events,
        drain=figures.drain_us_per_click + share * figures.drain_us_per_conversion,
        postgres=figures.postgres_us_per_click + share * figures.postgres_us_per_conversion,
        sums=figures.postgres_sums_us_per_click,
    )


def utilisations(figures: Figures, layout: Layout, rate_per_s: float, rows: float = 0) -> dict[str, float]:
    """Of each part that the simulation has: the share of its time that it works. `rows` of a batch: 0, as the rate has it.

    Above 1 it does not keep up, unless batches are not full: they grow while they wait, and cost less for each click.
    """
    cost = costs(figures)
    rows = rows or batch_rows(figures, layout, rate_per_s)
    fixed_us = figures.postgres_ms_per_batch * 1000 / rows
    one_by_one_us = serial_us(figures, layout)
    repeated = overtaken_share(figures, layout, rows) * (1 - one_by_one_us / cost.batch)
    per_drain = rate_per_s / layout.drains
    own_us = cost.batch * (1 + repeated) + fixed_us + _exchange_us(figures, layout)
    found = {
        "workers": rate_per_s * cost.worker / (layout.edges * layout.workers),
        "shipper": rate_per_s * cost.shipper / layout.edges,
        "stream": rate_per_s * cost.stream,
        "drains": per_drain * own_us,
        "postgres": rate_per_s * (cost.postgres * (1 + repeated) + fixed_us) / layout.postgres_cores,
    }
    if one_by_one_us:
        found[serial_part(layout)] = rate_per_s * (one_by_one_us + fixed_us)
    return {name: us / 1e6 for name, us in found.items()}


def is_shared(layout: Layout) -> bool:
    """Whether drains must agree on who came first."""
    return layout.unique_hours > 0 and layout.drains > 1


def serial_us(figures: Figures, layout: Layout) -> float:
    """Of a click, what only one drain at a time can do: under the lock of unique visits, which spans all that conversions
    need and the roll-ups; or from its first row of stats_hourly on, as every drain adds to the hour's largest offers."""
    if layout.drains == 1:
        return 0.0
    click_us = figures.drain_us_per_click + figures.postgres_us_per_click
    if not is_shared(layout):
        return click_us * figures.rollup_share
    return click_us * figures.locked_share + costs(figures).batch - click_us


def serial_part(layout: Layout) -> str:
    """What is held meanwhile."""
    return "unique lock" if is_shared(layout) else "roll-up rows"


def _exchange_us(figures: Figures, layout: Layout) -> float:
    """Of each click that a drain stores: what the other drains store meanwhile, and it must learn."""
    return figures.visit_us_per_click * (layout.drains - 1) if is_shared(layout) else 0.0


def batch_rows(figures: Figures, layout: Layout, rate_per_s: float) -> float:
    """How many clicks a batch has: what came since the last one began, EDGE_BATCH_ROWS at most."""
    rate = rate_per_s / layout.drains
    busy = rate * (costs(figures).batch + _exchange_us(figures, layout)) / 1e6
    waited_s = (figures.batch_interval_ms + figures.postgres_ms_per_batch) / 1000
    rows = rate * waited_s / (1 - busy) if busy < 1 else math.inf
    return min(max(rows, 1.0), figures.batch_rows)


def overtaken_share(figures: Figures, layout: Layout, rows: float) -> float:
    """Of the batches, those that are done twice because another drain stored a visitor's other click."""
    return 1 - (1 - figures.close_repeat_share) ** rows if is_shared(layout) else 0.0


def capacity(figures: Figures, layout: Layout) -> tuple[float, str]:
    """The rate at which the first part saturates with full batches, and its name: all use is in proportion to the rate."""
    used = utilisations(figures, layout, 1.0, figures.batch_rows)
    part = max(used, key=lambda name: used[name])
    return 1 / used[part], part


@dataclass(frozen=True)
class Limit:
    """A part of which there is one, whatever is bought: the rate that fills it, and what to do then."""

    part: str
    saturates_per_s: float
    lever: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def limits(figures: Figures) -> list[Limit]:
    """Those of the product as it is: one stream, one PostgreSQL, one agreement on unique visits; the lowest first."""
    cost = costs(figures)
    events = 1 + figures.conversions_per_click
    window_s = max(figures.unique_hours, 1e-9) * 3600
    memory = figures.memory_gb_per_machine * GB / figures.cores_per_machine
    fixed_us = figures.postgres_ms_per_batch * 1000 / figures.batch_rows
    several = Layout(1, 1, 2, 1, 0)
    found = [
        Limit("memory of unique visits, of each drain", memory * figures.peak_to_mean / (window_s * figures.visit_bytes_per_click),
              "EDGE_UNIQUE_HOURS less, or 0; EDGE_UNIQUE_CAPACITY keeps the memory, and forgets"),
        Limit("lock of unique visits", 1e6 / (serial_us(figures, several._replace(unique_hours=1)) + fixed_us), "EDGE_UNIQUE_HOURS=0; more EDGE_BATCH_ROWS while drains have room"),
        Limit("rows of stats_hourly, of the hour's largest offers", 1e6 / (serial_us(figures, several) + fixed_us), "more EDGE_BATCH_ROWS: fewer rows for each click; then a second installation"),
        Limit("exchange of unique visits", 1e6 / max(figures.visit_us_per_click, 1e-9), "EDGE_UNIQUE_HOURS=0: each drain learns every visit, so more drains do not help"),
        Limit("one stream", figures.stream_events_per_s / events, "larger batches; then a stream of its own for each group of edges: a second installation"),
        Limit("rows into one PostgreSQL", figures.postgres_rows_per_s / events, "Citus, or a second installation"),
        Limit("cores of one PostgreSQL", figures.postgres_cores * 1e6 / (cost.postgres + cost.sums), "a larger one; Citus"),
        Limit("drains, one for each partition", MAX_PARTITIONS * 1e6 / (cost.batch + fixed_us), "EDGE_STREAM_PARTITIONS up to 256, then a second installation"),
    ]  # fmt: skip
    return sorted(found, key=lambda limit: limit.saturates_per_s)


@dataclass(frozen=True)
class Plan:
    """What a peak rate needs, without unique clicks (`EDGE_UNIQUE_HOURS=0`), and what a billion clicks cost."""

    rate_per_s: int
    edges: int
    streams: int
    nats_servers: int
    drains: int
    drain_machines: int
    postgres: int
    """Servers that take writes."""
    postgres_tb: float
    """Of all rows kept, one copy."""
    inner_gbit_per_s: float
    first: str
    """What saturates first of what there is one of."""
    first_used: float
    unique_first: str
    """The same, unique clicks of `unique_hours` included."""
    unique_first_used: float
    unique_gb: float
    """What each drain would have to remember of the visits."""
    unique_load_hours: float
    """What a drain that starts would need to read them back."""
    cores: float
    dollars_machines: float
    dollars_storage: float
    dollars_network: float

    @property
    def dollars(self) -> float:
        """Of a billion clicks."""
        return self.dollars_machines + self.dollars_storage + self.dollars_network

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "dollars": round(self.dollars, 2)}


def plan(figures: Figures, rate_per_s: int) -> Plan:
    """What to buy for `rate_per_s` at the peak, each part used as much as `target_utilisation` says."""
    cost, target = costs(figures), figures.target_utilisation
    per_machine = figures.cores_per_machine * target * 1e6

    def machines(us: float, least: int) -> int:
        return max(least, math.ceil(rate_per_s * us / per_machine))

    edges = max(machines(cost.worker + cost.shipper, 2), math.ceil(rate_per_s * cost.shipper / (target * 1e6)))
    streams = math.ceil(rate_per_s * cost.stream / (target * 1e6))
    nats_servers = max(3 * streams, machines(cost.leader + 2 * cost.follower, 3))
    fixed_us = figures.postgres_ms_per_batch * 1000 / figures.batch_rows
    drains = max(2, math.ceil(rate_per_s * (cost.batch + fixed_us) / (target * 1e6)))
    drain_machines = machines(cost.drain, 2)
    events = rate_per_s * (1 + figures.conversions_per_click)
    by_cores = rate_per_s * (cost.postgres + cost.sums) / (figures.postgres_cores * target * 1e6)
    postgres = max(1, math.ceil(max(by_cores, events / (figures.postgres_rows_per_s * target))))
    cores = (edges + nats_servers + drain_machines) * figures.cores_per_machine
    cores += figures.postgres_copies * (postgres * figures.postgres_cores if postgres > 1 else _cores_of_one(figures, by_cores))
    first, unique_first = _first(figures, rate_per_s, with_unique=False), _first(figures, rate_per_s, with_unique=True)
    mean_per_s = rate_per_s / figures.peak_to_mean
    day_clicks = mean_per_s * 86_400
    inner_bytes = figures.stream_bytes_per_click * 4 + figures.postgres_wire_bytes_per_click * figures.postgres_copies
    window_clicks = mean_per_s * 3600 * figures.unique_hours
    return Plan(
        rate_per_s=rate_per_s, edges=edges, streams=streams, nats_servers=nats_servers, drains=drains,
        drain_machines=drain_machines, postgres=postgres,
        postgres_tb=day_clicks * figures.retention_days * figures.postgres_bytes_per_click / 1e12,
        inner_gbit_per_s=rate_per_s * inner_bytes * 8 / 1e9,
        first=first[0], first_used=first[1], unique_first=unique_first[0], unique_first_used=unique_first[1],
        unique_gb=window_clicks * figures.visit_bytes_per_click / GB,
        unique_load_hours=window_clicks / 1e6 * figures.unique_load_s_per_million / 3600,
        cores=cores,
        dollars_machines=cores * 1e9 / mean_per_s / 3600 * figures.price_core_hour,
        dollars_storage=_storage_dollars(figures),
        dollars_network=inner_bytes * figures.price_inner_gb + figures.answer_bytes_per_click * figures.price_outer_gb,
    )  # fmt: skip


def _first(figures: Figures, rate_per_s: float, *, with_unique: bool) -> tuple[str, float]:
    """The limit that is reached first, and how much of it the rate uses."""
    limit = next(one for one in limits(figures) if with_unique or "unique" not in one.part)
    return limit.part, rate_per_s / limit.saturates_per_s


def _cores_of_one(figures: Figures, share: float) -> float:
    """Of a single PostgreSQL that needs `share` of the largest: the smallest machine, doubled until it is enough."""
    cores = min(figures.cores_per_machine, figures.postgres_cores)
    while cores < share * figures.postgres_cores:
        cores *= 2
    return min(cores, figures.postgres_cores)


def _storage_dollars(figures: Figures) -> float:
    """Of a billion clicks, in every copy, as long as they are kept: a billion times a byte is a GB."""
    months = figures.retention_days * 24 / HOURS_A_MONTH
    return figures.postgres_bytes_per_click * figures.postgres_copies * months * figures.price_gb_month
