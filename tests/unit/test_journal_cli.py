"""`clickedge journal inspect` and `verify`."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from edge.cli.journal import journal
from edge.errors import UserError
from storage.journal import events
from storage.journal.reader import JournalReader
from storage.journal.segments import name_segment
from storage.journal.writer import JournalWriter

CLICK_MS = 1_700_000_000_000
CLICK_ID = CLICK_MS.to_bytes(6, "big") + bytes.fromhex("7000a000000000000001")
SESSION = events.Session(CLICK_ID, 3, 17, 2, 0, 0, "", "192.0.2.1", "curl")
CLICK = events.Click(
    session=SESSION,
    outcome="redirected",
    reason="",
    flags=["bot"],
    alias="",
    params={"aff_sub1": "ü"},
    referrer="",
    language="",
    visitor=b"",
)
HEARTBEAT = events.Heartbeat(CLICK_MS + 60_000)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data dir with one ended journal: two clicks and a heartbeat."""
    write_events(tmp_path / "journal", CLICK, CLICK, HEARTBEAT).close()
    return tmp_path


def write_events(root: Path, *written: events.Event) -> JournalWriter:
    """A living journal with these events."""
    writer = JournalWriter.create(root, node_id=4, worker_id=9, now_ms=CLICK_MS, max_segment_bytes=1 << 20)
    writer.write([events.encode(event) for event in written])
    return writer


def run(*arguments: str | Path) -> Result:
    """The command's result; its faults are raised, as the entry point gets them."""
    return CliRunner().invoke(journal, [str(argument) for argument in arguments], catch_exceptions=False)


def find_journal(data_dir: Path) -> Path:
    """The one journal there is."""
    return next((data_dir / "journal").iterdir())


def flip_first_click(data_dir: Path) -> None:
    """Damage the first record."""
    record = JournalReader(find_journal(data_dir)).read(1, 1).records[0]
    with name_segment(find_journal(data_dir), 1).open("r+b") as file:
        file.seek(record.end_offset - 1)
        file.write(b"\xff")


@pytest.mark.parametrize("place", ["", "journal", "one"])
def test_inspect_says_what_a_journal_holds(data_dir: Path, place: str) -> None:
    """Given the data dir, its journal dir or one journal: node, worker, kinds, times, health."""
    result = run("inspect", find_journal(data_dir) if place == "one" else data_dir / place)
    assert result.exit_code == 0
    assert f"journal {find_journal(data_dir).name}  node 4  worker 9  ended" in result.output
    assert "segments  1" in result.output
    assert "records   3 (2 click, 1 heartbeat)" in result.output
    assert "2023-11-14T22:13:20.000+00:00 to 2023-11-14T22:14:20.000+00:00" in result.output
    assert "health    clean" in result.output


def test_inspect_prints_records_as_json_lines(data_dir: Path) -> None:
    """Each event on a line of standard output, ids in hex, the session in place."""
    result = run("inspect", "--records", data_dir)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["click", "click", "heartbeat"]
    assert lines[0]["session"]["click_id"] == CLICK_ID.hex()
    assert lines[0]["params"] == {"aff_sub1": "ü"}
    assert (lines[0]["segment"], lines[2]["ms"]) == (1, HEARTBEAT.ms)


def test_inspect_reads_a_journal_that_is_written(tmp_path: Path) -> None:
    """A living journal is read to where it stands now, not waited for."""
    writer = write_events(tmp_path, CLICK)
    result = run("inspect", tmp_path)
    assert "being written" in result.output
    assert "records   1 (1 click)" in result.output
    writer.close()


def test_verify_passes_clean_journals(data_dir: Path) -> None:
    """Exit code 0, with a torn tail too, which is only mentioned."""
    assert run("verify", data_dir).exit_code == 0
    with name_segment(find_journal(data_dir), 1).open("ab") as file:
        file.write(b"torn!")
    result = run("verify", data_dir)
    assert result.exit_code == 0
    assert "clean, 5 bytes of a torn tail" in result.output


def test_verify_fails_on_damage(data_dir: Path) -> None:
    """Exit code 1 for a damaged record; inspect says where it lies."""
    flip_first_click(data_dir)
    result = run("verify", data_dir)
    assert result.exit_code == 1
    assert "1 damaged regions" in result.output
    assert "segment 1, bytes 45 to" in run("inspect", data_dir).output


def test_verify_fails_on_a_record_that_is_no_event(tmp_path: Path) -> None:
    """A frame that verifies but does not decode is reported, not a traceback."""
    writer = write_events(tmp_path, CLICK)
    broken = msgspec.structs.replace(CLICK, alias=msgspec.Raw(b"\x01"))
    writer.write([b"\xc1", events.encode(broken)])
    writer.close()
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert "2 records that are no event" in result.output


def test_segments_deleted_after_draining_are_not_missed(tmp_path: Path) -> None:
    """What retention removed from the front of a journal is no damage."""
    writer = JournalWriter.create(tmp_path, node_id=1, worker_id=1, now_ms=1, max_segment_bytes=1)
    for _ in range(3):
        writer.write([events.encode(HEARTBEAT)])
    writer.close()
    for number in (1, 2):
        name_segment(writer.directory, number).unlink()
    result = run("inspect", tmp_path)
    assert "records   2 (2 heartbeat)" in result.output
    assert "health    clean" in result.output


def test_a_data_dir_without_journals_is_clean(tmp_path: Path) -> None:
    """Nothing there is nothing wrong."""
    result = run("verify", tmp_path)
    assert (result.exit_code, result.output) == (0, "0 journals, 0 with damage\n")
    assert run("inspect", tmp_path).output == f"no journal in {tmp_path}\n"


def test_a_directory_that_is_not_there_is_the_users_fault(tmp_path: Path) -> None:
    """One clear line instead of an empty answer."""
    with pytest.raises(UserError, match="is no directory"):
        run("inspect", tmp_path / "absent")
