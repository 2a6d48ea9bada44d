"""`doctor`'s looks at files: certificate, geo database, data centres, catalog, journals; each fault is there for real."""

import os
import time
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edge.doctor.catalog import check_catalog
from edge.doctor.files import check_certificate, check_datacentres, check_geo
from edge.doctor.journals import check_backlog, measure_growth
from storage.journal.writer import JournalWriter
from storage.snapshot_file import write_snapshot
from tests.doctoring import make_certificate, make_installation, said_by

OFFER = b'{"id":17,"advertiser_id":1,"name":"Flat","url":"https://shop.example.com/?c={transaction_id}"}'


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def test_a_certificate_is_shaken_hands_with(tmp_path: Path) -> None:
    """Good for a year, for a week, until yesterday; with another's key; not there."""
    for days, told in ((365, "ok: for edge.test, until"), (7, "warn: for edge.test, until"), (-1, "fail: ")):
        certificate, key = make_certificate(tmp_path, days=days)
        [said] = said_by(check_certificate, make_installation(tmp_path, tls_cert=certificate, tls_key=key))
        assert said.startswith(told)
    assert "certificate has expired" in said
    other = tmp_path / "other"
    other.mkdir()
    _, stranger = make_certificate(other, days=365)
    [said] = said_by(check_certificate, make_installation(tmp_path, tls_cert=certificate, tls_key=stranger))
    assert said.startswith(f"fail: {certificate}: KEY_VALUES_MISMATCH")
    [said] = said_by(check_certificate, make_installation(tmp_path, tls_cert="/nowhere/cert.pem", tls_key=key))
    assert said.startswith("fail: /nowhere/cert.pem: ")


def test_a_geo_database_is_opened_and_dated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh, stale, of a kind without places, cut off, missing, none."""
    path = tmp_path / "geo.mmdb"
    found = make_installation(tmp_path, geoip_db=str(path))
    assert said_by(check_geo, found)[0].startswith(f"fail: {path}: ")

    def write(kind: str, age_days: int) -> None:
        writer = MMDBWriter(4, kind, languages=["en"])
        writer.insert_network(IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "CA"}})
        with monkeypatch.context() as patch:
            real = time.time
            patch.setattr("mmdb_writer.time.time", lambda: real() - age_days * 86_400)
            writer.to_db_file(str(path))

    for kind, age_days, told in (
        ("Test-City", 1, "ok: Test-City, 1 days old"),
        ("Test-City", 100, "warn: Test-City, 100 days old"),
        ("Test-ASN", 1, "warn: Test-ASN, 1 days old: that kind may know no countries"),
    ):
        write(kind, age_days)
        assert said_by(check_geo, found) == [told]
    path.write_bytes(path.read_bytes()[:50])
    assert said_by(check_geo, found)[0].startswith(f"fail: {path}: ")
    assert said_by(check_geo, make_installation(tmp_path))[0].startswith("ok: none is set")


def test_a_list_of_data_centres_is_read(tmp_path: Path) -> None:
    """Whole, empty, with a line that is no block, missing."""
    path = tmp_path / "list"
    found = make_installation(tmp_path, datacentre_list=str(path))
    assert said_by(check_datacentres, found)[0].startswith(f"fail: {path}: ")
    path.write_text("192.0.2.0/24\n198.51.100.0/24\n")
    assert said_by(check_datacentres, found) == [f"ok: 2 ranges in {path}"]
    path.write_text("nonsense\n")
    assert "line 1 is no address" in said_by(check_datacentres, found)[0]
    path.write_text("")
    assert said_by(check_datacentres, found)[0].startswith("warn: 0 ranges")
    assert said_by(check_datacentres, make_installation(tmp_path))[0].endswith("the packaged list")


def test_a_catalog_is_compiled_whole(tmp_path: Path) -> None:
    """None yet; one whose offer anybody may convert; a guarded one; an item that is none; a file that is cut."""
    path = tmp_path / "catalog.snapshot"
    found = make_installation(tmp_path)
    assert said_by(check_catalog, found)[0].startswith("ok: no snapshot yet")
    plain, guarded = b'{"id":1,"name":"Plain"}', b'{"id":1,"name":"Guarded","security_token":"s3cret-and-long"}'
    write_snapshot(path, 4, [("advertisers", "1", plain), ("offers", "17", OFFER)])
    assert said_by(check_catalog, found) == [
        "ok: revision 4, 1 offers, all compile",
        "warn: offers whose postbacks need neither token nor address: 17",
    ]
    write_snapshot(path, 5, [("advertisers", "1", guarded), ("offers", "17", OFFER)])
    assert said_by(check_catalog, found) == ["ok: revision 5, 1 offers, all compile"]
    short = make_installation(tmp_path, click_retention_s=86_400)
    assert (
        said_by(check_catalog, short)[1]
        == "warn: offer 17 counts conversions for 30.0 days, longer than clicks are kept"
    )
    write_snapshot(path, 6, [("offers", "17", b'{"id":"x"}')])
    assert said_by(check_catalog, found)[0].startswith("fail: items that do not compile: offers 17 (")
    path.write_bytes(path.read_bytes()[:-3])
    assert said_by(check_catalog, found)[0].startswith(f"fail: {path}: ")


def test_the_growth_of_the_journals_is_that_of_their_newest_hour(tmp_path: Path) -> None:
    """A segment written over ten hours counts with a tenth an hour; one of the last hour counts whole."""
    now_s = time.time()
    root = tmp_path / "journal"
    writer = JournalWriter.create(
        root, node_id=0, worker_id=0, now_ms=round((now_s - 36_000) * 1000), max_segment_bytes=1 << 20
    )
    writer.write([bytes(200_000)] * 2)
    writer.close()
    [segment] = writer.directory.glob("*.log")
    os.utime(segment, (now_s, now_s))
    assert measure_growth(root, now_s) == pytest.approx(segment.stat().st_size / 36_000, rel=0.01)
    fresh = JournalWriter.create(
        root, node_id=0, worker_id=1, now_ms=round((now_s - 1800) * 1000), max_segment_bytes=1 << 20
    )
    fresh.write([bytes(200_000)] * 2)
    fresh.close()
    [second] = fresh.directory.glob("*.log")
    os.utime(second, (now_s, now_s))
    expected = segment.stat().st_size / 36_000 + second.stat().st_size / 3600
    assert measure_growth(root, now_s) == pytest.approx(expected, rel=0.01)
    assert measure_growth(tmp_path / "nothing", now_s) == 0


def test_a_backlog_is_held_against_the_cap(tmp_path: Path) -> None:
    """Little, much, and so much that clicks go unrecorded."""
    writer = JournalWriter.create(
        tmp_path / "journal", node_id=0, worker_id=0, now_ms=now_ms(), max_segment_bytes=1 << 20
    )
    writer.write([bytes(225_000)] * 4)
    writer.close()
    for cap, state in ((1 << 40, "ok"), (1 << 20, "ok"), (960_000, "fail")):
        assert [one.state for one in check_backlog(make_installation(tmp_path, journal_max_bytes=cap))] == [state]
