"""edge/tracking/rotation.py: landing pages by weight; edge/tracking/visitors.py: who it hangs on."""

from collections import Counter

import pytest

from edge.tracking.catalog_document import LandingPage
from edge.tracking.rotation import Rotation, compile_rotation
from edge.tracking.visitors import Visitors, place_in, seed_of

SEEDS = [seed_of(number.to_bytes(16, "big")) for number in range(20_000)]


def rotation_of(offer_id: int = 17, **weights: int) -> Rotation:
    """Of pages p1, p2…"""
    pages = [LandingPage(id=int(name[1:]), url="https://p.example/", weight=weight) for name, weight in weights.items()]
    rotation = compile_rotation(offer_id, pages)
    assert rotation is not None
    return rotation


def chosen(rotation: Rotation) -> list[int]:
    return [rotation.choose(lambda seed=seed: seed) for seed in SEEDS]  # type: ignore[misc]


@pytest.mark.parametrize(
    "weights", [{"p1": 70, "p2": 30}, {"p1": 1, "p2": 1, "p3": 1}, {"p9": 1, "p3": 0, "p1": 9}, {"p1": 2**31 - 1, "p2": 2**31 - 1}]
)
def test_visitors_are_shared_out_by_weight(weights: dict[str, int]) -> None:
    """Within what 20,000 visitors vary; a page without a weight is shown to none."""
    counts = Counter(chosen(rotation_of(**weights)))
    total = sum(weights.values())
    for name, weight in weights.items():
        assert abs(counts[int(name[1:])] / len(SEEDS) - weight / total) < 0.015


def test_a_visitor_sees_one_page_and_offers_choose_apart() -> None:
    """The same again at each click; who sees an offer's first page is no likelier to see another's."""
    mine, other = chosen(rotation_of(p1=1, p2=1)), chosen(rotation_of(18, p1=1, p2=1))
    assert mine == chosen(rotation_of(p1=1, p2=1))
    alike = sum(one == two for one, two in zip(mine, other, strict=True)) / len(SEEDS)
    assert abs(alike - 0.5) < 0.015


def test_more_weight_takes_visitors_and_moves_no_others() -> None:
    """Of two pages, none moves from the one that grew."""
    before, after = chosen(rotation_of(p1=50, p2=50)), chosen(rotation_of(p1=60, p2=40))
    moved = Counter((one, two) for one, two in zip(before, after, strict=True) if one != two)
    assert set(moved) == {(2, 1)}
    assert abs(moved[2, 1] / len(SEEDS) - 0.1) < 0.015


def test_one_page_needs_no_choice_and_none_no_rotation() -> None:
    """Nobody is asked who it is for nothing; without a weight the offer's own URL is shown."""

    def nobody() -> bytes:
        raise AssertionError("the visitor was asked for")

    assert rotation_of(p5=3, p6=0).choose(nobody) == 5
    assert compile_rotation(17, []) is None
    assert compile_rotation(17, [LandingPage(id=1, url="https://p.example/")]) is None


def test_a_visitor_is_named_by_address_agent_and_secret() -> None:
    """The same everywhere with one secret; no piece of one part passes for one of the other."""
    visitors = Visitors("secret")
    name = visitors.name("203.0.113.9", "Mozilla/5.0")
    assert (len(name), name) == (16, Visitors("secret").name("203.0.113.9", "Mozilla/5.0"))
    others = [
        visitors.name("203.0.113.8", "Mozilla/5.0"),
        visitors.name("203.0.113.9", "Mozilla/5.1"),
        visitors.name("203.0.113.9M", "ozilla/5.0"),
        Visitors("other").name("203.0.113.9", "Mozilla/5.0"),
    ]
    assert len({name, *others}) == 5
    assert len(seed_of(name)) == 4
    assert {place_in(1, seed, "x") for seed in SEEDS} == {0}
