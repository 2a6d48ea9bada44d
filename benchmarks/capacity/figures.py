"""The figures that the model and the simulation reckon with, each with where it comes from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parents[1] / "results"
FIGURES = RESULTS / "capacity.json"
CLUSTER = RESULTS / "cluster.json"
FROM_CLUSTER = {"shipper": ("shipper", 1), "nats_leader": ("NATS leader", 1), "nats_follower": ("NATS followers", 2)}
"""What nothing else measures: the name in cluster.json, and how many servers it is of."""


@dataclass(frozen=True)
class Figures:
    """Costs, limits and choices; `us` are microseconds of one core. What each means: results/capacity.json."""

    worker_us_per_click: float
    shipper_us_per_click: float
    nats_leader_us_per_click: float
    nats_follower_us_per_click: float
    drain_us_per_click: float
    postgres_us_per_click: float
    postgres_sums_us_per_click: float
    worker_us_per_conversion: float
    drain_us_per_conversion: float
    postgres_us_per_conversion: float
    postgres_ms_per_batch: float
    locked_share: float
    rollup_share: float
    visit_us_per_click: float
    close_repeat_share: float
    stream_events_per_s: float
    stream_ack_p50_ms: float
    stream_ack_p99_ms: float
    postgres_rows_per_s: float
    journal_bytes_per_click: float
    stream_bytes_per_click: float
    postgres_bytes_per_click: float
    postgres_wire_bytes_per_click: float
    answer_bytes_per_click: float
    visit_bytes_per_click: float
    unique_load_s_per_million: float
    conversions_per_click: float
    peak_to_mean: float
    target_utilisation: float
    cores_per_machine: float
    memory_gb_per_machine: float
    postgres_cores: int
    postgres_copies: int
    batch_rows: int
    batch_interval_ms: float
    ship_interval_ms: float
    ship_window: int
    takeover_s: float
    unique_hours: float
    partitions: int
    retention_days: float
    price_core_hour: float
    price_gb_month: float
    price_inner_gb: float
    price_outer_gb: float

    def __post_init__(self) -> None:
        negative = [field.name for field in fields(self) if getattr(self, field.name) < 0]
        if negative:
            raise ValueError(f"below zero: {', '.join(negative)}")
        if not 0 < self.target_utilisation < 1:
            raise ValueError(f"target_utilisation {self.target_utilisation} is not between 0 and 1")


class Source(NamedTuple):
    """Where a figure comes from; `kind` is "measured", "estimate" or "choice"."""

    value: float
    kind: str
    source: str


class Book(NamedTuple):
    """The figures, and each one's source by its name."""

    figures: Figures
    sources: dict[str, Source]


def load(path: Path = FIGURES, cluster: Path = CLUSTER) -> Book:
    """What `path` says, and `cluster` where it is there. ValueError: a name missing, unknown or without a number."""
    said = json.loads(path.read_text(encoding="utf-8"))
    sources = {name: _source(name, one, "measured" if one.get("measured") else "estimate") for name, one in said["figures"].items()}
    sources |= {name: _source(name, one, "choice") for name, one in said["choices"].items()}
    if cluster.exists():
        sources |= _from_cluster(json.loads(cluster.read_text(encoding="utf-8")))
    wanted = {field.name for field in fields(Figures)}
    if wanted != set(sources):
        raise ValueError(f"{path}: missing {sorted(wanted - set(sources))}, unknown {sorted(set(sources) - wanted)}")
    return Book(Figures(**{name: _number(name, one.value) for name, one in sources.items()}), sources)


def write(path: Path, said: Mapping[str, Any]) -> None:
    """The file again, a figure a line."""
    parts = [f'  "about": {json.dumps(said["about"])}']
    for name in ("figures", "choices"):
        lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in said[name].items())
        parts.append(f'  "{name}": {{\n{lines}\n  }}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _source(name: str, said: Mapping[str, Any], kind: str) -> Source:
    value = said.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: {value!r} is no number")  # noqa: TRY004 - of a file's content
    return Source(value, kind, str(said.get("source", "")))


def _from_cluster(said: Mapping[str, Any]) -> dict[str, Source]:
    layout = "1 edge, 1 drain"
    costs = said.get("layouts", {}).get(layout, {}).get("cpu_us_per_click", {})
    return {
        f"{name}_us_per_click": Source(costs[part] / servers, "measured", f"cluster.json, {layout}: {part}")
        for name, (part, servers) in FROM_CLUSTER.items()
        if part in costs
    }


def _number(name: str, value: float) -> Any:
    """Counts are whole, all else is a float."""
    is_count = Figures.__dataclass_fields__[name].type in (int, "int")
    return int(value) if is_count else float(value)
