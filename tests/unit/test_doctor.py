"""`doctor`'s looks at a machine: each fault is made for real, and named with what to do about it."""

import errno
import os
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.doctor.clock import Jumps, check_leases, check_synchronised, check_time_zones
from edge.doctor.configuration import check_private_files, check_settings
from edge.doctor.disk import check_data_dir, check_filesystem, check_space, check_sync_speed, time_syncs
from edge.doctor.examination import _guarded, examine
from edge.doctor.findings import Finding, fail, format_bytes, format_duration, hide
from edge.doctor.installation import Installation, find_holder
from edge.doctor.machine import check_descriptors, check_kernel, check_memory, check_parsers, check_processors
from edge.doctor.ports import check_ports
from edge.settings import Settings
from storage.files import hold_lock
from storage.leases import IdLease, read_lease
from tests.doctoring import make_installation, said_by
from tests.node import COMMAND, free_port


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may write anywhere: the check is made as somebody else."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("settings", "state", "said"),
    [
        ({"admin_host": "0.0.0.0"}, "warn", "EDGE_ADMIN_HOST is 0.0.0.0 with no proxy named"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "fail", "EDGE_TRUSTED_PROXIES has 0.0.0.0/0: any client chooses"),
        ({"trusted_proxies": ("::/0",)}, "fail", "EDGE_TRUSTED_PROXIES has ::/0: any client chooses"),
        ({"trusted_proxies": ("10.0.0.0/7",)}, "warn", "which is very wide"),
        ({"postback_allow": ("0.0.0.0/0",)}, "warn", "EDGE_POSTBACK_ALLOW has 0.0.0.0/0"),
        ({"lane": False}, "warn", "EDGE_LANE is off"),
        ({"conversion_durability": "process"}, "warn", "EDGE_CONVERSION_DURABILITY is process"),
        ({"fsync_interval_ms": 5000}, "warn", "EDGE_FSYNC_INTERVAL_MS is 5000"),
        ({"journal_keep_s": 0}, "warn", "EDGE_JOURNAL_KEEP is 0 s"),
        ({"secrets": ("sixteen-letters-",)}, "warn", "EDGE_SECRET is short or repeats itself (16 characters)"),
        ({"secrets": ("ab" * 32,)}, "warn", "EDGE_SECRET is short or repeats itself (64 characters)"),
        ({"admin_token": "0123456789abcdef"}, "warn", "EDGE_ADMIN_TOKEN is short"),
        ({"database_url": "postgresql://u:p@db.example/x"}, "warn", "does not insist on TLS"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_dangerous_setting_is_named(tmp_path: Path, settings: dict[str, Any], state: str, said: str) -> None:
    """One finding, which says what can happen and what to do, and repeats no secret."""
    [finding] = check_settings(make_installation(tmp_path, **settings))
    assert finding.state == state
    assert said in finding.found
    assert finding.advice
    for secret in (*settings.get("secrets", ()), settings.get("admin_token", "x" * 99)):
        assert secret not in str(finding)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"admin_host": "::1"},
        {"admin_host": "0.0.0.0", "trusted_proxies": ("10.1.0.0/16",)},
        {"database_url": "postgresql://u:p@db.example/x?sslmode=verify-full"},
        {"database_url": "postgresql://u:p@127.0.0.1:5432/x"},
        {"database_url": "postgresql://u:p@/x?host=/run/postgresql"},
        {"secrets": ("5f0c1e9b7a2d4c3e8f6a5b4c3d2e1f00",)},
    ],
    ids=str,
)
def test_settings_that_are_no_danger_are_ok(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The defaults, and what differs from them for a reason."""
    assert [one.state for one in check_settings(make_installation(tmp_path, **settings))] == ["ok"]


def test_files_with_secrets_that_others_may_read_fail(tmp_path: Path) -> None:
    """The secret, the keys of TLS and stream, a settings file with a secret in it, a data dir that others may write."""
    tmp_path.chmod(0o700)
    secret, key, config = tmp_path / "secret", tmp_path / "tls.key", tmp_path / "edge.toml"
    sessions, credentials = tmp_path / "console.secret", tmp_path / "edge.creds"
    written = {secret: "x" * 40, sessions: "x" * 64, key: "key", credentials: "key", config: 'stream_url = "nats://u:p@x"'}
    for path, text in written.items():
        path.write_text(text)
        path.chmod(0o644)
    found = make_installation(tmp_path, config_file=config, tls_key=str(key), stream_credentials=str(credentials))
    told = [f"{path}: others may read it (mode 0644)" for path in written]
    assert [one.removeprefix("fail: ") for one in said_by(check_private_files, found)] == told
    for path in written:
        path.chmod(0o600)
    assert [one.state for one in check_private_files(found)] == ["ok"]
    tmp_path.chmod(0o777)
    assert said_by(check_private_files, found) == [f"fail: {tmp_path}: others may write there (mode 0777)"]


def test_a_data_dir_that_cannot_be_written_fails(data_dir: Path) -> None:
    """Whether it may be read or not even entered; the fsync probe is left out and says so. A file is none either."""
    data_dir.mkdir()
    found = make_installation(data_dir / "inner" / "data")
    for mode in (0o555, 0o000):
        data_dir.chmod(mode)
        with as_ordinary_user():
            [finding] = check_data_dir(found)
            [probe] = check_sync_speed(found)
        assert (finding.state, "no directory that this user can write" in finding.found) == ("fail", True)
        assert probe.state == "skipped"
    data_dir.chmod(0o700)
    assert said_by(check_data_dir, found) == [f"ok: {found.data_dir} does not exist yet; serve makes it"]
    data_dir.joinpath("inner").touch()
    assert said_by(check_data_dir, found) == [f"fail: {data_dir / 'inner'} is no directory that this user can write"]


def test_a_disk_in_memory_is_warned_of() -> None:
    """/dev/shm is gone at the next boot, and no fsync there is suspicious."""
    found = make_installation(Path("/dev/shm/clickedge-doctor/data"))
    assert said_by(check_filesystem, found) == ["warn: /dev/shm is tmpfs: all of it is gone at the next boot"]
    assert [one.state for one in check_sync_speed(found)] == ["ok"]
    assert not Path("/dev/shm/clickedge-doctor").exists()


def test_the_fsync_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its file never has a name, so a doctor that is killed leaves none either."""
    before = list(tmp_path.iterdir())
    took_s = time_syncs(tmp_path)
    assert len(took_s) > 1
    assert min(took_s) > 0
    assert list(tmp_path.iterdir()) == before


def test_a_slow_disk_is_held_against_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower than the interval; slow where an answer waits for it; faster than any disk; and as it should be."""
    found = make_installation(tmp_path)
    for took_ms, said in ((60, "slower than EDGE_FSYNC_INTERVAL_MS (50)"), (30, "every answer to a conversion waits")):
        monkeypatch.setattr("edge.doctor.disk.time_syncs", lambda _, took_ms=took_ms: [took_ms / 1000] * 9)
        [finding] = check_sync_speed(found)
        assert (finding.state, said in finding.found) == ("warn", True)
    monkeypatch.setattr("edge.doctor.disk.time_syncs", lambda _: [1e-6] * 9)
    assert "faster than a disk can be" in said_by(check_sync_speed, found)[0]
    monkeypatch.setattr("edge.doctor.disk.time_syncs", lambda _: [0.002] * 9)
    assert said_by(check_sync_speed, found)[0].startswith("ok: 9 fsyncs")


def test_a_cap_beyond_the_disk_is_warned_of(tmp_path: Path) -> None:
    """The journal would meet the disk's end before its own."""
    assert [one.state for one in check_space(make_installation(tmp_path, journal_max_bytes=2**20))] == ["ok"]
    [finding] = check_space(make_installation(tmp_path, journal_max_bytes=2**59))
    assert (finding.state, "EDGE_JOURNAL_MAX_BYTES allows the journal" in finding.found) == ("warn", True)


def test_a_lease_tells_the_clock_that_it_is_behind(tmp_path: Path) -> None:
    """None; one of now; one of the future, which fails from a minute on; one that is damaged."""
    path = tmp_path / "ids" / "worker-0.lease"
    found = make_installation(tmp_path)
    assert said_by(check_leases, found) == ["ok: none yet: no worker has run on this data dir"]
    IdLease.open(path, now_ms()).close()
    assert [one.state for one in check_leases(found)] == ["ok"]
    for ahead_ms, state in ((10_000, "warn"), (3_600_000, "fail")):
        IdLease.open(path, now_ms() + ahead_ms).close()
        [finding] = check_leases(found)
        assert (finding.state, "behind what ids were minted with" in finding.found) == (state, True)
    path.write_bytes(b"CEL1" + bytes(12))
    [finding] = check_leases(found)
    assert (finding.state, f"{path} is damaged" in finding.found) == ("fail", True)


def test_a_lease_is_read_without_its_lock(tmp_path: Path) -> None:
    """A worker that holds it goes on, and what is read is what it leased."""
    lease = IdLease.open(tmp_path / "ids" / "worker-0.lease", now_ms())
    assert read_lease(tmp_path / "ids" / "worker-0.lease") == lease.through_ms
    lease.extend(now_ms() + 5000)
    lease.close()
    empty = tmp_path / "empty.lease"
    empty.touch()
    assert read_lease(empty) == 0
    body = struct.pack(">Q", 42)
    empty.write_bytes(b"CEL1" + struct.pack(">I", zlib.crc32(body)) + body)
    assert read_lease(empty) == 42


def test_a_clock_that_is_set_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock moves against the monotonic one."""
    jumps = Jumps()
    assert said_by(jumps.check, make_installation(tmp_path)) == []
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert said_by(jumps.check, make_installation(tmp_path)) == ["warn: it jumped by +3600.0 s while we looked"]


def test_the_kernel_is_asked_for_its_clock_zones_parsers_and_sockets(tmp_path: Path) -> None:
    """Whatever machine this is, each of these has an answer, and the locked wheels are compiled."""
    found = make_installation(tmp_path, timezone="Europe/Berlin")
    assert [one.name for one in check_synchronised(found)] == ["clock"]
    assert [one.state for one in check_parsers(found)] == ["ok"]
    assert said_by(check_time_zones, found)[0].endswith("days begin in Europe/Berlin")
    [kernel] = check_kernel(found)
    assert "somaxconn" in kernel.found


def test_more_workers_than_cores_and_more_memory_than_there_is_are_warned_of(tmp_path: Path) -> None:
    """One worker and the defaults are no burden."""
    assert [one.state for one in check_processors(make_installation(tmp_path))] == ["ok"]
    assert [one.state for one in check_processors(make_installation(tmp_path, workers=62))] == ["warn"]
    assert [one.state for one in check_memory(make_installation(tmp_path, drains=16, unique_capacity=10**9))] == [
        "warn"
    ]


def test_a_low_limit_of_descriptors_fails_in_a_real_process(tmp_path: Path) -> None:
    """`ulimit -n 64`: serve would raise it no further, and a worker has hardly a connection; exit code 1."""
    command = [str(COMMAND), "doctor", "--data-dir", str(tmp_path / "data"), "--port", "0", "--admin-port", "0"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a serve started from here may open 64 files in each process" in done.stdout
    assert "LimitNOFILE" in done.stdout


def test_a_limit_is_the_running_serves_own(tmp_path: Path) -> None:
    """A process that holds the data dir's lock is asked, not we."""
    tmp_path.joinpath("serve.lock").touch()
    lock = hold_lock(tmp_path / "serve.lock")
    assert lock is not None
    try:
        found = make_installation(tmp_path)
        assert found.serve_pid == os.getpid() == find_holder(tmp_path / "serve.lock")
        assert said_by(check_descriptors, found)[0].partition(" may")[0].endswith("the running serve")
    finally:
        os.close(lock)
    assert find_holder(tmp_path / "serve.lock") is None
    assert find_holder(tmp_path / "nothing") is None


def test_a_port_held_by_a_stranger_fails_and_names_it(tmp_path: Path) -> None:
    """This process is the stranger; the port of the serve itself would be fine."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        found = make_installation(tmp_path, host="127.0.0.1", port=port, admin_port=0)
        first, second = check_ports(found)
        assert first.state == "fail"
        assert f"127.0.0.1:{port} is held by" in first.found
        assert f"(process {os.getpid()})" in first.found
        assert (second.state, second.found) == ("ok", "EDGE_ADMIN_PORT is 0: serve takes a free one")
        ours = Installation(found.settings, None, os.getpid())
        assert next(iter(check_ports(ours))).found == f"127.0.0.1:{port} is held by the running serve"


def test_a_port_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    """An address of another machine; a running serve that listens elsewhere; a free one."""
    port = free_port()
    [first, _] = check_ports(make_installation(tmp_path, host="192.0.2.1", port=port, admin_port=0))
    assert first.found == f"cannot listen on 192.0.2.1:{port}: {os.strerror(errno.EADDRNOTAVAIL)}"
    free = make_installation(tmp_path, host="127.0.0.1", port=port, admin_port=0)
    assert said_by(check_ports, free)[0] == f"ok: 127.0.0.1:{port} is free"
    elsewhere = Installation(free.settings, None, os.getpid())
    assert said_by(check_ports, elsewhere)[0].startswith("warn: a serve runs on this data dir, and not on")


def test_no_secret_leaves_in_a_finding() -> None:
    """Whatever an error's text repeats is blotted out."""
    findings = [fail("x", "could not use hunter22 at hunter22-and-more", "try hunter22")]
    assert hide(findings, ["hunter22", "", "hunter22-and-more"]) == [
        Finding("x", "fail", "could not use … at …", "try …")
    ]


def test_a_check_that_breaks_spares_the_others(tmp_path: Path) -> None:
    """It is a finding of its own, after what it had found."""

    def check_something(found: Installation) -> Iterator[Finding]:
        yield fail("something", "first", "")
        raise ZeroDivisionError("as if")

    first, second = _guarded(check_something, make_installation(tmp_path))
    assert first.found == "first"
    assert (second.name, second.state) == ("something", "fail")
    assert second.found == "could not be looked at: ZeroDivisionError: as if"


def test_a_machine_without_a_node_is_well_and_unchanged(tmp_path: Path) -> None:
    """Before the first start nothing fails, the database is left out with a reason, and no file is made."""
    findings = examine(Settings(data_dir=str(tmp_path / "data"), port=0, admin_port=0))
    assert [one.found for one in findings if one.state == "fail"] == []
    assert [one.found for one in findings if one.state == "skipped"] == ["the embedded one runs only with serve"]
    assert [one for one in findings if one.state != "ok" and not one.advice] == []
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_times_are_written_for_people() -> None:
    """With a unit that fits."""
    assert [format_bytes(count) for count in (0, 1023, 1536, 5 * 2**30)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [format_duration(s) for s in (2, 90, 5400, 200_000)] == ["2.0 s", "1.5 minutes", "1.5 hours", "2.3 days"]
