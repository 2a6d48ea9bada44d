"""edge/datacentres.py and edge/crawlers.py: published lists say what is a data centre and what is a program."""

import json
import os
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge.crawlers import is_crawler
from edge.datacentres import Datacentres, merge, pack, packaged_ranges, read_ranges

LIST = """\
# made by hand
203.0.113.0/25
198.51.100.7 ; a single one
192.0.2.10-192.0.2.20
2001:db8::/32,Example Hosting,,
"""


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A list of the operator's own."""
    path = tmp_path / "datacentres.txt"
    path.write_text(LIST)
    return path


@pytest.mark.parametrize(
    ("ip", "is_held"),
    [
        ("203.0.113.0", True),
        ("203.0.113.127", True),
        ("203.0.113.128", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("192.0.2.15", True),
        ("192.0.2.21", False),
        ("2001:db8::7", True),
        ("2001:db9::", False),
        ("::ffff:203.0.113.5", True),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("", False),
        ("none", False),
        ("203.0.113.0/25", False),
        ("fe80::1%eth0", False),
        ("\0", False),
        ("\ud800", False),
    ],
)
def test_an_address_is_looked_up_in_the_list(path: Path, ip: str, is_held: bool) -> None:
    """Blocks, ranges and single addresses of both versions; what is no address is nowhere."""
    assert Datacentres(path, Clock()).holds(ip) is is_held


def test_a_changed_list_counts_within_a_second(path: Path) -> None:
    """Also for addresses that were asked for before."""
    clock = Clock()
    datacentres = Datacentres(path, clock)
    assert not datacentres.holds("8.8.8.8")
    fresh = path.with_suffix(".new")
    fresh.write_text("8.8.8.0/24\n")
    os.replace(fresh, path)
    assert not datacentres.holds("8.8.8.8")
    clock.now_s += 1
    assert datacentres.holds("8.8.8.8")
    assert not datacentres.holds("203.0.113.1")


def test_a_damaged_list_leaves_the_last_good_one_in_use(path: Path) -> None:
    """One line says where it is wrong."""
    clock = Clock()
    datacentres = Datacentres(path, clock)
    assert datacentres.holds("203.0.113.1")
    path.write_text("8.8.8.0/24\nnonsense\n")
    clock.now_s += 1
    with capture_logs() as logs:
        assert datacentres.holds("203.0.113.1")
        assert not datacentres.holds("8.8.8.8")
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("datacentre_list_unusable", "line 2 is no address, range or CIDR block: 'nonsense'")
    ]


def test_a_missing_list_flags_nothing_and_is_logged(tmp_path: Path) -> None:
    """The setting may name a file that comes later."""
    with capture_logs() as logs:
        assert not Datacentres(tmp_path / "later.txt", Clock()).holds("52.94.76.1")
    assert [entry["event"] for entry in logs] == ["datacentre_list_unusable"]


def test_the_packaged_list_knows_the_large_clouds_and_no_subscribers() -> None:
    """One address of each of its clouds; a DSL and a mobile line, and what is documentation's."""
    datacentres = Datacentres(None, Clock())
    clouds = ["52.94.76.1", "34.80.0.1", "20.36.0.1", "129.146.0.1", "104.131.0.1", "2600:1f18::1"]
    assert [ip for ip in clouds if not datacentres.holds(ip)] == []
    assert [ip for ip in ("84.131.7.7", "174.192.1.1", "203.0.113.77", "2003:c7::1") if datacentres.holds(ip)] == []
    assert len(packaged_ranges().firsts) > 3000


blocks = st.ip_addresses(v=4).flatmap(
    lambda address: st.integers(8, 32).map(lambda bits: ip_network((address, bits), strict=False))
)


@given(st.lists(blocks, max_size=20), st.ip_addresses(v=4))
def test_the_merged_ranges_hold_what_the_blocks_hold(networks: list[object], address: object) -> None:
    """Whatever overlaps or touches, merged and bisected gives the same answer as asking each block."""
    ranges = read_ranges("\n".join(map(str, networks)))
    probes = [address, *(network[0] for network in networks), *(network[-1] for network in networks)]  # type: ignore[index]
    for probe in probes:
        assert ranges.hold(pack(str(probe))) == any(ip_address(str(probe)) in network for network in networks)  # type: ignore[operator]


def test_touching_ranges_become_one() -> None:
    """So that a bisection finds the only one there is."""
    assert len(merge([(10, 19), (20, 29), (5, 11), (40, 41)]).firsts) == 2


def test_the_rust_core_reads_the_crawler_list_as_its_authors_mean_it() -> None:
    """Every user agent that the list gives as an example of a crawler is one."""
    entries = json.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8"))
    examples = [example for entry in entries for example in entry["instances"]]
    assert len(examples) > 1000
    assert [example for example in examples if not is_crawler(example)] == []


@pytest.mark.parametrize(
    "user_agent",
    [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/100 Mobile Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 [FBAN/FBIOS;FBAV/450.0.0.38]",
        "",
    ],
)
def test_a_browser_is_no_crawler(user_agent: str) -> None:
    """Nor is a phone whose maker's name ends in bot, or an app's own browser."""
    assert not is_crawler(user_agent)
