"""The capacity model's arithmetic, its figures, and its tables."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.capacity import page
from benchmarks.capacity.figures import CLUSTER, FIGURES, Figures, load
from benchmarks.capacity.model import RATES_PER_S, Layout, capacity, costs, limits, plan, utilisations
from benchmarks.capacity.page import render

BOOK = load(FIGURES, Path("no such file"))
ROUND = replace(
    BOOK.figures,
    worker_us_per_click=20, shipper_us_per_click=5, nats_leader_us_per_click=4, nats_follower_us_per_click=3,
    drain_us_per_click=60, postgres_us_per_click=20, postgres_sums_us_per_click=20, worker_us_per_conversion=100,
    drain_us_per_conversion=200, postgres_us_per_conversion=300, postgres_ms_per_batch=5, locked_share=0.25, rollup_share=0.1,
    visit_us_per_click=0, close_repeat_share=0, stream_events_per_s=100_000, postgres_rows_per_s=200_000,
    postgres_bytes_per_click=1000, stream_bytes_per_click=250, postgres_wire_bytes_per_click=500, answer_bytes_per_click=600,
    conversions_per_click=0.0, peak_to_mean=2, target_utilisation=0.5, cores_per_machine=10, postgres_cores=20,
    postgres_copies=2, batch_rows=5000, retention_days=365 / 12, price_core_hour=0.05, price_gb_month=0.1, price_inner_gb=0.01,
    price_outer_gb=0.05,
)  # fmt: skip
"""Figures that can be reckoned by hand."""


def test_the_plan_is_what_a_hand_works_out() -> None:
    """100,000 clicks/s: 25 us at the edge are 2.5 cores, 5 at half use; 80 us of a drain are 8, and so on."""
    found = plan(ROUND, 100_000)
    assert (found.edges, found.streams, found.nats_servers) == (2, 2, 6)  # one stream is full, at half use two are needed
    assert found.drains == 17  # 100,000 * (60 + 20 + 5,000 / 5,000) us = 8.1 s a second, and each works for half of it
    assert found.drain_machines == 2  # 6 cores, 12 at half use
    assert found.postgres == 1  # 40 us are 4 cores, 8 at half use; rows: 100,000 of 100,000 at half use
    assert found.cores == (2 + 6 + 2) * 10 + 2 * 10
    assert found.postgres_tb == pytest.approx(50_000 * 86_400 * 365 / 12 * 1000 / 1e12)
    assert found.inner_gbit_per_s == pytest.approx(100_000 * 2000 * 8 / 1e9)
    assert found.dollars_machines == pytest.approx(120 * 0.05 * 1e9 / 50_000 / 3600)
    assert found.dollars_storage == pytest.approx(1000 * 2 * 0.1)
    assert found.dollars_network == pytest.approx(2000 * 0.01 + 600 * 0.05)
    assert found.dollars == pytest.approx(33.33 + 200 + 50, abs=0.01)


def test_a_click_pays_for_its_share_of_a_conversion() -> None:
    """One in ten: a tenth of the conversion's costs, and of an event more on the stream."""
    found = costs(replace(ROUND, conversions_per_click=0.1))
    assert found.worker == pytest.approx(30)
    assert found.batch == pytest.approx(60 + 20 + 20 + 30)
    assert found.stream == pytest.approx(11)


def test_the_lock_of_unique_visits_saturates_where_its_time_is_full() -> None:
    """A quarter of 80 us and a thousandth of 5 ms: 21 us, whatever the number of drains; off, a tenth and the same."""
    layout = Layout(edges=4, workers=4, drains=100, postgres_cores=40, unique_hours=24)
    found, part = capacity(ROUND, layout)
    assert (part, found) == ("unique lock", pytest.approx(1e6 / 21, rel=1e-3))
    found, part = capacity(ROUND, layout._replace(unique_hours=0))
    assert (part, found) == ("stream", pytest.approx(100_000, rel=1e-3))
    faster = replace(ROUND, stream_events_per_s=1e6)
    found, part = capacity(faster, layout._replace(unique_hours=0))
    assert (part, found) == ("roll-up rows", pytest.approx(1e6 / 9, rel=1e-3))


def test_one_drain_shares_nothing() -> None:
    """It needs no lock, and saturates when its own time is full."""
    found, part = capacity(ROUND, Layout(1, 4, 1, 8, unique_hours=24))
    assert (part, found) == ("drains", pytest.approx(1e6 / 81, rel=1e-3))


def test_each_drain_learns_what_all_others_store() -> None:
    """4 us for each click of the others: with ten drains a click costs 36 us more than its own 81."""
    figures = replace(ROUND, visit_us_per_click=4, locked_share=0.0, rollup_share=0.0)
    found = utilisations(figures, Layout(4, 4, 10, 100, unique_hours=24), 1_000_000)
    assert found["drains"] == pytest.approx(100_000 * (81 + 36) / 1e6)


def test_overtaken_batches_are_done_twice_but_for_what_the_lock_covers() -> None:
    """With a repeat in every batch each costs three quarters of its time again."""
    layout = Layout(4, 4, 10, 100, unique_hours=24)
    once, twice = (utilisations(replace(ROUND, close_repeat_share=share), layout, 1_000_000) for share in (0.0, 1.0))
    assert twice["drains"] - once["drains"] == pytest.approx(100_000 * 80 * 0.75 / 1e6)
    assert twice["unique lock"] == once["unique lock"]


def test_more_clicks_never_need_less() -> None:
    """Machines, cores, bytes and use grow with the rate; what a billion cost does not."""
    plans = [plan(BOOK.figures, rate) for rate in sorted({*RATES_PER_S, 30_000, 300_000, 3_000_000})]
    for name in ("edges", "nats_servers", "drains", "drain_machines", "postgres", "cores", "postgres_tb", "first_used"):
        values = [getattr(one, name) for one in plans]
        assert values == sorted(values), name
    assert plans[-1].dollars < plans[0].dollars


def test_dearer_parts_saturate_earlier() -> None:
    """No cost can be raised without a limit that falls, or stays."""
    before = {one.part: one.saturates_per_s for one in limits(BOOK.figures)}
    for name in ("drain_us_per_click", "postgres_us_per_click", "locked_share", "rollup_share", "visit_us_per_click", "visit_bytes_per_click"):
        dearer = limits(replace(BOOK.figures, **{name: getattr(BOOK.figures, name) * 2}))
        assert all(one.saturates_per_s <= before[one.part] for one in dearer), name
        assert any(one.saturates_per_s < before[one.part] for one in dearer), name
    assert list(before.values()) == sorted(before.values())


def write_figures(path: Path, **changed: Any) -> Path:
    said = json.loads(FIGURES.read_text(encoding="utf-8"))
    for name, value in changed.items():
        said["figures"][name] = value
    path.write_text(json.dumps(said), encoding="utf-8")
    return path


def test_what_the_cluster_measured_replaces_the_estimates(tmp_path: Path) -> None:
    """The names that it has, and those only; they then count as measured."""
    cluster = tmp_path / "cluster.json"
    cluster.write_text(json.dumps({"layouts": {"1 edge, 1 drain": {"cpu_us_per_click": {"shipper": 7.5, "NATS leader": 2, "else": 1}}}}), encoding="utf-8")
    found = load(FIGURES, cluster)
    assert (found.figures.shipper_us_per_click, found.figures.nats_leader_us_per_click) == (7.5, 2.0)
    assert found.figures.drain_us_per_click == BOOK.figures.drain_us_per_click
    assert (BOOK.sources["shipper_us_per_click"].kind, found.sources["shipper_us_per_click"].kind) == ("estimate", "measured")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("shipper_us_per_click", {"value": "5"}, "shipper_us_per_click: '5' is no number"),
        ("shipper_us_per_click", {}, "shipper_us_per_click: None is no number"),
        ("shipper_us_per_click", {"value": -1}, "below zero: shipper_us_per_click"),
        ("shiper_us", {"value": 1}, "unknown \\['shiper_us'\\]"),
    ],
)
def test_wrong_figures_are_refused_by_name(tmp_path: Path, name: str, value: Any, complaint: str) -> None:
    """A word, nothing, less than nothing, or a name that is none."""
    with pytest.raises(ValueError, match=complaint):
        load(write_figures(tmp_path / "figures.json", **{name: value}), tmp_path / "none")


def test_a_missing_figure_is_named(tmp_path: Path) -> None:
    """Nothing is taken for zero."""
    path = tmp_path / "figures.json"
    said = json.loads(FIGURES.read_text(encoding="utf-8"))
    del said["choices"]["price_gb_month"]
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ValueError, match=r"missing \['price_gb_month'\]"):
        load(path, tmp_path / "none")


def test_every_figure_says_where_it_comes_from() -> None:
    """Also those that a cluster measured here."""
    book = load(FIGURES, CLUSTER)
    assert [name for name, one in book.sources.items() if not one.source] == []
    assert set(book.sources) == set(Figures.__dataclass_fields__)


def test_the_page_shows_each_rate_limit_and_source() -> None:
    """What saturates at once is there, and estimates are called so."""
    found = {
        "plans": [plan(BOOK.figures, rate).as_dict() for rate in RATES_PER_S],
        "limits": [one.as_dict() for one in limits(BOOK.figures)],
        "agreement": [], "runs": [], "outages": [],
    }  # fmt: skip
    tables = render(BOOK, found)
    assert all(f"| {rate:,} |" in tables for rate in RATES_PER_S)
    assert all(one.part in tables for one in limits(BOOK.figures))
    assert "| `shipper_us_per_click` | 5 | estimate |" in tables
    assert "estimates**" in tables


def test_publishing_replaces_what_stands_between_the_marks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as once; the page itself has the marks, with tables of each kind between them."""
    copy = tmp_path / "scaling.md"
    before = page.PAGE.read_text(encoding="utf-8")
    copy.write_text(before, encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", copy)
    page.publish("new tables")
    page.publish("newer tables")
    head, _, rest = before.partition("<!-- capacity -->\n")
    assert copy.read_text(encoding="utf-8") == f"{head}<!-- capacity -->\n\nnewer tables\n<!-- /capacity -->{rest.partition('<!-- /capacity -->')[2]}"
    assert all(f"**{title}" in rest for title in ("Machines", "Dollars", "Of what there is one only", "Model and simulation", "Simulated"))
