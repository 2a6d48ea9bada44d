"""edge/drain/enrich.py: what a user agent and an address tell; unknown rather than wrong, and never an error."""

import os
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from structlog.testing import capture_logs

from edge.enrich import Enricher
from edge.tracking.surroundings import UNKNOWN_DEVICE, UNKNOWN_PLACE, Place

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.4 Mobile/15E148 Safari/604.1"
)
OTTAWA = {
    "country": {"iso_code": "CA"},
    "subdivisions": [{"iso_code": "ON", "names": {"en": "Ontario"}}],
    "city": {"names": {"en": "Ottawa", "fr": "Ottawa"}},
}
PARIS = {"country": {"iso_code": "FR"}, "city": {"names": {"en": "Paris"}}}


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def enricher() -> Enricher:
    """One without a geo database; loading the patterns takes a third of a second."""
    return Enricher(None, Clock())


def write_database(path: Path, places: dict[str, Any], *, ip_version: int = 6) -> None:
    """Puts a database beside `path` and renames it there, as updaters do."""
    writer = MMDBWriter(ip_version, "Test-City", languages=["en"], ipv4_compatible=ip_version == 6)
    for network, record in places.items():
        writer.insert_network(IPSet([network]), record)
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    fresh.rename(path)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A city database with two neighbours inside one /24."""
    path = tmp_path / "geo.mmdb"
    write_database(path, {"192.0.2.0/25": OTTAWA, "192.0.2.128/25": PARIS, "2001:db8::/32": PARIS})
    return path


@pytest.mark.parametrize(
    ("user_agent", "device_type", "brand", "os_family", "browser"),
    [
        ("", "", "", "", ""),
        (IPHONE, "mobile", "Apple", "iOS", "Mobile Safari"),
        (IPHONE.replace("iPhone", "iPad"), "tablet", "Apple", "iOS", "Mobile Safari"),
        (f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {CHROME} Mobile Safari/537.36", "mobile", "Google", "Android",
         "Chrome Mobile"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {CHROME} Mobile Safari/537.36", "mobile", "", "Android",
         "Chrome Mobile"),
        (f"Mozilla/5.0 (Linux; Android 13; SM-X700) {CHROME} Safari/537.36", "tablet", "", "Android", "Chrome"),
        (f"Mozilla/5.0 (Linux; Android 12; Lenovo TB-X606F) {CHROME} Safari/537.36", "tablet", "Lenovo", "Android",
         "Chrome"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36", "desktop", "", "Windows", "Chrome"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {CHROME} Safari/537.36", "desktop", "Apple", "Mac OS X",
         "Chrome"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", "desktop", "", "Linux", "Firefox"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME} Safari/537.36", "desktop", "", "Chrome OS", "Chrome"),
        (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {CHROME} Safari/537.36", "other", "LG", "Web0S", "Chrome"),
        (f"Mozilla/5.0 (Linux; Android 9; AFTMM) {CHROME} Mobile Safari/537.36", "other", "", "Android",
         "Chrome Mobile"),
        ("no browser \udc80 at all", "other", "", "", ""),
    ],
)  # fmt: skip
def test_a_user_agent_tells_its_device(
    enricher: Enricher, user_agent: str, device_type: str, brand: str, os_family: str, browser: str
) -> None:
    """Type, brand, system and browser of the devices that clicks come from."""
    device = enricher.device(user_agent)
    assert (device.device_type, device.device_brand, device.os, device.browser) == (device_type, brand, os_family, browser)
    assert not device.is_bot


@pytest.mark.parametrize(
    "user_agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) {CHROME} Mobile Safari/537.36 (compatible; Googlebot/2.1)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
        "curl/8.5.0",
        "python-requests/2.32.3",
        "Go-http-client/2.0",
    ],
)
def test_a_crawler_is_a_bot_whatever_phone_it_plays(enricher: Enricher, user_agent: str) -> None:
    """Bots are flagged, so that reports can leave them out."""
    device = enricher.device(user_agent)
    assert (device.device_type, device.is_bot, device.device_brand) == ("bot", True, "")


def test_a_user_agent_is_read_and_remembered_to_a_bounded_length(enricher: Enricher) -> None:
    """A client cannot fill the cache's memory with long names: the same beginning is the same entry."""
    assert enricher.device(IPHONE.ljust(512) + "a" * 60_000) is enricher.device(IPHONE.ljust(512) + "b")
    assert enricher.device("") is UNKNOWN_DEVICE


@given(st.text(max_size=600))
def test_no_user_agent_makes_it_fail(enricher: Enricher, user_agent: str) -> None:
    """Whatever a client calls itself, the type is one of the contract's."""
    assert enricher.device(user_agent).device_type in {"desktop", "mobile", "tablet", "bot", "other", ""}


def test_an_address_tells_its_place(database: Path) -> None:
    """IPv4 and IPv6; neighbours in one /24 are told apart; what the database does not know is unknown."""
    enricher = Enricher(database, Clock())
    assert enricher.place("192.0.2.7") == Place("CA", "ON", "Ottawa")
    assert enricher.place("192.0.2.200") == Place("FR", "", "Paris")
    assert enricher.place("2001:db8::1") == Place("FR", "", "Paris")
    assert enricher.place("198.51.100.1") == UNKNOWN_PLACE
    assert enricher.place("192.0.2.7") is enricher.place("192.0.2.7")


@pytest.mark.parametrize("ip", ["", "none", "192.0.2.0/24", "192.0.2.999", "fe80::1%eth0", "\0"])
def test_what_is_no_address_is_nowhere(database: Path, ip: str) -> None:
    """Truncated or missing addresses are no error."""
    assert Enricher(database, Clock()).place(ip) == UNKNOWN_PLACE


def test_an_ipv6_address_in_an_ipv4_database_is_nowhere(tmp_path: Path) -> None:
    """Some country databases hold IPv4 only."""
    path = tmp_path / "v4.mmdb"
    write_database(path, {"192.0.2.0/24": OTTAWA}, ip_version=4)
    enricher = Enricher(path, Clock())
    assert enricher.place("2001:db8::1") == UNKNOWN_PLACE
    assert enricher.place("192.0.2.7").country == "CA"


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"country": {"iso_code": "US"}}, Place("US")),
        ({"country_code": "US", "country": "United States"}, Place("US")),
        ({"subdivisions": [{"names": {"en": "Ontario"}}]}, Place("", "Ontario")),
        ({"country": ["US"], "subdivisions": {"iso_code": "ON"}, "city": 7}, UNKNOWN_PLACE),
        ({"subdivisions": []}, UNKNOWN_PLACE),
    ],
)
def test_records_of_other_shapes_tell_what_they_can(tmp_path: Path, record: object, place: Place) -> None:
    """Vendors fill the format differently."""
    path = tmp_path / "geo.mmdb"
    write_database(path, {"192.0.2.0/24": record})
    assert Enricher(path, Clock()).place("192.0.2.7") == place


def test_without_a_database_every_place_is_unknown(enricher: Enricher) -> None:
    """Geo is optional."""
    assert enricher.place("192.0.2.7") is UNKNOWN_PLACE


def test_a_replaced_database_is_followed_within_a_second(database: Path) -> None:
    """An updater renames a new file over the old one; the cached places go with it."""
    clock = Clock()
    enricher = Enricher(database, clock)
    assert enricher.place("192.0.2.7").country == "CA"
    write_database(database, {"192.0.2.0/24": PARIS})
    assert enricher.place("192.0.2.7").country == "CA"
    clock.now_s += 1
    assert enricher.place("192.0.2.7").country == "FR"


def test_a_database_overwritten_in_place_neither_kills_nor_misleads(database: Path) -> None:
    """A half-copied file leaves the last good database in use (a mapping of it would end in SIGBUS)."""
    clock = Clock()
    enricher = Enricher(database, clock)
    whole = database.read_bytes()
    assert enricher.place("192.0.2.7").country == "CA"
    os.truncate(database, 100)
    assert enricher.place("192.0.2.200").country == "FR"
    clock.now_s += 1
    with capture_logs() as logs:
        assert enricher.place("192.0.2.7").country == "CA"
    assert [entry["event"] for entry in logs] == ["geoip database unusable"]
    database.write_bytes(whole)
    clock.now_s += 1
    assert enricher.place("192.0.2.1").country == "CA"


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 100])
def test_a_missing_or_damaged_database_is_one_line_a_minute(tmp_path: Path, content: bytes | None) -> None:
    """Places are unknown until the file is right; the log does not fill up; no click fails."""
    path = tmp_path / "geo.mmdb"
    if content is not None:
        path.write_bytes(content)
    clock = Clock()
    with capture_logs() as logs:
        enricher = Enricher(path, clock)
        for _ in range(30):
            assert enricher.place("192.0.2.7") == UNKNOWN_PLACE
            clock.now_s += 1
    assert len(logs) == 1
    write_database(path, {"192.0.2.0/24": OTTAWA})
    assert enricher.place("192.0.2.7").country == "CA"


def test_a_database_that_goes_away_leaves_places_unknown(database: Path) -> None:
    """Who removes the file wants its answers gone."""
    clock = Clock()
    enricher = Enricher(database, clock)
    assert enricher.place("192.0.2.7").country == "CA"
    database.unlink()
    clock.now_s += 1
    with capture_logs():
        assert enricher.place("192.0.2.7") == UNKNOWN_PLACE


def test_a_directory_instead_of_a_file_is_unusable(tmp_path: Path) -> None:
    """A wrong path is logged, nothing more."""
    structlog.reset_defaults()
    with capture_logs() as logs:
        assert Enricher(tmp_path, Clock()).place("192.0.2.7") == UNKNOWN_PLACE
    assert [entry["event"] for entry in logs] == ["geoip database unusable"]


def test_who_looks_for_itself_finds_a_database_once(database: Path) -> None:
    """A worker opens a database beside its loop, and places are the old one's until it takes the new one."""
    enricher = Enricher(database, Clock(), checks_itself=False)
    assert enricher.place("192.0.2.7") == UNKNOWN_PLACE
    enricher.take(enricher.look())
    assert enricher.look() is None
    assert enricher.place("192.0.2.7").country == "CA"
    write_database(database, {"192.0.2.0/24": PARIS})
    found = enricher.look()
    assert enricher.place("192.0.2.7").country == "CA"
    enricher.take(found)
    assert enricher.place("192.0.2.7").country == "FR"
    assert Enricher(None, Clock(), checks_itself=False).look() is None


@pytest.mark.parametrize(
    ("user_agent", "model", "version"),
    [
        (IPHONE, "iPhone", "17.4"),
        (f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {CHROME} Mobile Safari/537.36", "Pixel 8", "14"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {CHROME} Mobile Safari/537.36", "", "10"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {CHROME} Safari/537.36", "Mac", "10.15.7"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "", ""),
        ("", "", ""),
    ],
)
def test_model_and_version_are_told_where_they_are_named(
    enricher: Enricher, user_agent: str, model: str, version: str
) -> None:
    """A pattern's filler (`Generic Smartphone`) is no model."""
    device = enricher.device(user_agent)
    assert (device.device_model, device.os_version) == (model, version)
