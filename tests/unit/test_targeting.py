"""edge/tracking/targeting.py: which rule is for which click; what is not known matches nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.catalog_document import Offer, Then, When
from edge.tracking.catalog_fields import DEVICE_TYPES, WEEKDAYS
from edge.tracking.headers import first_language
from edge.tracking.request import Request
from edge.tracking.surroundings import Device, NoEnrichment, Place
from edge.tracking.targeting import CompiledRule, Visit, compile_rules, find_rule
from tests.wire.edge_state import NOW_MS, request_of

FRIDAY_8_UTC_MS = NOW_MS
"""2027-01-15T08:00:00Z."""
HOUR_MS = 3_600_000


class Known:
    """Tells what it was given."""

    def __init__(self, device: Device, place: Place) -> None:
        self._device, self._place = device, place

    def device(self, user_agent: str) -> Device:
        """Whatever the agent."""
        return self._device

    def place(self, ip: str) -> Place:
        """Whatever the address."""
        return self._place


class Forbidden:
    """Nobody may ask."""

    def device(self, user_agent: str) -> Device:
        """Not needed."""
        raise AssertionError("the device was asked for")

    def place(self, ip: str) -> Place:
        """Not needed."""
        raise AssertionError("the place was asked for")


PHONE = Device("mobile", "Apple", "iOS", "Mobile Safari")
MAC = Device("desktop", "Apple", "Mac OS X", "Chrome")
TORONTO = Known(PHONE, Place("CA", "ON", "Toronto"))
LOS_ANGELES = Known(MAC, Place("US", "CA", "Los Angeles"))
NOBODY = NoEnrichment()


def rules_of(*rules: dict[str, Any], time_zone: str = "UTC") -> tuple[CompiledRule, ...]:
    body = {"id": 17, "advertiser_id": 1, "name": "O", "url": "https://o.example/", "rules": rules, "time_zone": time_zone}
    return compile_rules(msgspec.convert(body, Offer))


def no_seed() -> bytes:
    raise AssertionError("the visitor was asked for")


def request(query: str = "", language: str = "", now_ms: int = NOW_MS) -> Request:
    return request_of(query, {"Accept-Language": language}, now_ms=now_ms)


def matches(
    when: dict[str, Any], known: Any = NOBODY, asked: Request | None = None, time_zone: str = "UTC"
) -> bool:
    rules = rules_of({"when": when, "then": {"reject": "no"}}, time_zone=time_zone)
    return find_rule(rules, Visit(asked or request(), known), no_seed) is not None


@pytest.mark.parametrize(
    ("when", "known", "expected"),
    [
        ({"country": ["US", "CA"]}, TORONTO, True),
        ({"country": ["US"]}, TORONTO, False),
        ({"country": ["US"]}, NOBODY, False),
        ({"region": ["ON"]}, TORONTO, True),
        ({"region": ["on"]}, TORONTO, True),
        ({"region": ["CA-ON"]}, TORONTO, True),
        ({"region": ["US-ON"]}, TORONTO, False),
        ({"region": ["CA"]}, LOS_ANGELES, True),
        ({"region": ["CA"]}, TORONTO, False),
        ({"region": ["ON"]}, NOBODY, False),
        ({"region": ["CA-"]}, Known(PHONE, Place("CA")), False),
        ({"device": ["mobile"]}, TORONTO, True),
        ({"device": ["tablet", "desktop"]}, TORONTO, False),
        ({"device": list(DEVICE_TYPES)}, NOBODY, False),
        ({"os": ["ios"]}, TORONTO, True),
        ({"os": ["iOS"]}, TORONTO, True),
        ({"os": ["macOS"]}, LOS_ANGELES, True),
        ({"os": ["Mac OS X"]}, LOS_ANGELES, True),
        ({"os": ["Windows"]}, LOS_ANGELES, False),
        ({"os": ["Windows"]}, NOBODY, False),
        ({"browser": ["chrome"]}, LOS_ANGELES, True),
        ({"browser": ["Safari"]}, TORONTO, False),
        ({"browser": ["Safari"]}, NOBODY, False),
        ({"country": ["CA"], "device": ["mobile"], "os": ["iOS"]}, TORONTO, True),
        ({"country": ["CA"], "device": ["desktop"], "os": ["iOS"]}, TORONTO, False),
    ],
)
def test_a_rule_asks_for_device_and_place(when: dict[str, Any], known: Any, expected: bool) -> None:
    """Each list that is given must have one that fits, in any case of letters; unknown fits nothing."""
    assert matches(when, known) is expected


@pytest.mark.parametrize(
    ("header", "wanted", "expected"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de", True),
        ("de-AT,de;q=0.9", "de-at", True),
        ("de-AT,de;q=0.9", "de-DE", False),
        ("de,en;q=0.9", "de-AT", False),
        ("en,de;q=0.9", "de", False),
        ("PT-br;q=1", "pt-BR", True),
        (" fr ;q=0.8", "FR", True),
        ("*", "de", False),
        ("", "de", False),
        ("den", "de", False),
        (",de", "de", False),
    ],
)
def test_a_language_is_the_first_that_the_browser_names(header: str, wanted: str, expected: bool) -> None:
    """The whole tag, or its first part."""
    assert matches({"language": [wanted]}, asked=request(language=header)) is expected


@pytest.mark.parametrize(
    ("time_zone", "now_ms", "weekday", "hour"),
    [
        ("UTC", FRIDAY_8_UTC_MS, "fri", 8),
        ("America/New_York", FRIDAY_8_UTC_MS, "fri", 3),
        ("Pacific/Kiritimati", FRIDAY_8_UTC_MS, "fri", 22),
        ("Pacific/Kiritimati", FRIDAY_8_UTC_MS + 2 * HOUR_MS, "sat", 0),
        ("Pacific/Pago_Pago", FRIDAY_8_UTC_MS, "thu", 21),
        ("Europe/Berlin", FRIDAY_8_UTC_MS, "fri", 9),
        ("Europe/Berlin", FRIDAY_8_UTC_MS + 182 * 24 * HOUR_MS, "fri", 10),
        ("Asia/Kathmandu", FRIDAY_8_UTC_MS + HOUR_MS // 4 - 1, "fri", 13),
        ("Asia/Kathmandu", FRIDAY_8_UTC_MS + HOUR_MS // 4, "fri", 14),
    ],
)
def test_day_and_hour_are_those_of_the_offers_time_zone(time_zone: str, now_ms: int, weekday: str, hour: int) -> None:
    """Summer time and half-hour zones too; each other day and hour does not match."""
    asked = request(now_ms=now_ms)
    days = [day for day in WEEKDAYS if matches({"weekday": [day]}, asked=asked, time_zone=time_zone)]
    hours = [one for one in range(24) if matches({"hour": [one]}, asked=asked, time_zone=time_zone)]
    assert (days, hours) == ([weekday], [hour])


def test_a_time_zone_that_this_machine_does_not_know_matches_nothing() -> None:
    """Its tables may be older than those that the catalog was checked by: no click may fail for it."""
    when = {"hour": list(range(24)), "weekday": list(WEEKDAYS)}
    assert matches(when)
    assert not matches(when, time_zone="Mars/Olympus_Mons")


@pytest.mark.parametrize(
    ("when", "query", "expected"),
    [
        ({"source": ["news", "mail"]}, "source=mail", True),
        ({"source": ["news"]}, "source=News", False),
        ({"source": ["news"]}, "", False),
        ({"aff_sub1": ["a b"]}, "aff_sub=a+b", True),
        ({"aff_sub2": ["x"], "aff_sub5": ["y"]}, "aff_sub2=x&aff_sub5=y", True),
        ({"aff_sub2": ["x"], "aff_sub5": ["y"]}, "aff_sub2=x", False),
        ({"aff_sub3": ["x"]}, "aff_sub4=x", False),
    ],
)
def test_source_and_sub_ids_are_taken_literally(when: dict[str, Any], query: str, expected: bool) -> None:
    """They are the partner's own words; nothing about device or place is looked up for them."""
    assert matches(when, Forbidden(), request(query)) is expected


def test_the_first_match_acts_and_no_later_rule_is_asked() -> None:
    """Positions count from 1, as the file's diff and faults name them."""
    rules = rules_of(
        {"when": {"source": ["a"]}, "then": {"reject": "a"}},
        {"when": {"aff_sub1": ["b"]}, "then": {"offer_id": 18}},
        {"then": {"url": "https://all.example/?c={transaction_id}"}},
        {"when": {"country": ["US"]}, "then": {"landing_page_id": 1}},
    )

    def acting(query: str) -> int:
        found = find_rule(rules, Visit(request(query), Forbidden()), no_seed)
        assert found is not None
        return found.position

    assert [acting(query) for query in ("source=a&aff_sub=b", "aff_sub=b", "")] == [1, 2, 3]
    assert [rule.names_page for rule in rules] == [False, False, True, True]


@pytest.mark.parametrize("percentage", [1, 25, 99])
def test_a_percentage_is_of_the_visitors(percentage: int) -> None:
    """About so many of them, each always or never; two rules of one percentage take different ones."""
    rule, other = rules_of(*[{"when": {"percentage": percentage}, "then": {"reject": "no"}}] * 2)
    visit = Visit(request(), Forbidden())
    seeds = [number.to_bytes(4, "big") for number in range(20_000)]

    def taken_by(one: CompiledRule) -> list[bool]:
        return [one.matches(visit, lambda seed=seed: seed) for seed in seeds]  # type: ignore[misc]

    taken, again, others = taken_by(rule), taken_by(rule), taken_by(other)
    assert taken == again
    assert abs(sum(taken) / len(seeds) - percentage / 100) < 0.015
    both = sum(one and two for one, two in zip(taken, others, strict=True)) / len(seeds)
    assert abs(both - (percentage / 100) ** 2) < 0.015


def test_all_visitors_are_taken_without_asking_who_they_are() -> None:
    """Without a percentage, and with one of 100; nor is the visitor asked for where something else does not match."""
    assert matches({"percentage": 100})
    assert matches({})
    assert not matches({"percentage": 50, "source": ["x"]})


@given(st.text(max_size=64), st.text(max_size=8), st.integers(0, 2**42))
def test_no_click_makes_a_rule_fail(language: str, value: str, now_ms: int) -> None:
    """Whatever it brings: matching is yes or no."""
    when = msgspec.to_builtins(When(language=("de",), source=("x",), weekday=("mon",), hour=(1,)))
    rules = rules_of({"when": when, "then": msgspec.to_builtins(Then(reject="no"))})
    asked = request_of("source=x&offer_id=1", {"Accept-Language": language, "User-Agent": value}, now_ms=now_ms)
    find_rule(rules, Visit(asked, NOBODY), no_seed)
    assert "," not in first_language(language)
