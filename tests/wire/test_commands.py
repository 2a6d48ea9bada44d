"""The commands beside `serve`, as a user types them, on a running node and without one; and the page about them."""

import asyncio
import http.client
import json
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.admin.catalog_publisher import POLL_INTERVAL_S
from edge.catalog_follower import CHECK_INTERVAL_S
from edge.metric_families import METRICS
from edge.settings import _SETTINGS
from tests.node import COMMAND, EXAMPLE_CATALOG, Node

FORGED = "01a2004f81c070008000369c4b260418"
ROOT = Path(__file__).parents[2]
EVENT = re.compile(r"(?:\.(?:info|warning|error|critical)|_reporter)\(\s*\"([a-z_ ]+)\"")
RELEASE = re.compile(r"clickedge, version \d+\.\d+\.\d+\n")


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node for all tests of this file: none of them stops it."""
    node = Node(short_directory / f"commands-{uuid.uuid4().hex[:8]}")
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def run(*arguments: str | bytes | Path, code: int = 0, given: str = "") -> str:
    """What the command prints, both streams; it must end with `code` and never with a traceback."""
    done = subprocess.run(
        [COMMAND, *arguments], input=given.encode(), capture_output=True, timeout=60, check=False, cwd="/"
    )
    printed = (done.stdout + done.stderr).decode()
    assert "Traceback" not in printed
    assert done.returncode == code, printed
    return printed


def get(node: Node, path: str) -> tuple[str, str]:
    """The `Location` and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.getheader("Location", ""), answer.read().decode()
    finally:
        connection.close()


def click(node: Node) -> str:
    """A new click's id."""
    location, _ = get(node, "/aff_c?offer_id=17&aff_id=2&aff_sub=hello&colour=r%C3%B6d")
    found = re.search(r"clickid=([0-9a-f]{32})", location)
    assert found
    return found[1]


def until(node: Node, check: Callable[[], bool], timeout_s: float = 20) -> None:
    """Poll `check` until it says yes."""
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, node.describe()
        time.sleep(0.05)


def has_conversions(node: Node, click_id: str, count: int) -> bool:
    """Whether so many conversions of that click are stored."""
    query = "SELECT count(*) AS n FROM conversions WHERE click_id = $1"
    return bool(asyncio.run(node.fetch(query, uuid.UUID(click_id)))[0]["n"] == count)


def test_explain_tells_the_click_and_each_decision_with_its_reason(node: Node) -> None:
    """In words, with what the client sent on one line each."""
    click_id = click(node)
    for _ in range(2):
        get(node, f"/aff_lsr?transaction_id={click_id}&amount=49.90&adv_sub=order-7")
    until(node, lambda: has_conversions(node, click_id, 2))
    story = run("explain", click_id, "--data-dir", node.data_dir)
    assert re.search(rf"{click_id}  minted \S+ \S+ by worker 0 of node 0", story)
    assert re.search(r"click  .*  redirected  \(catalog revision \d+\)", story)
    assert re.search(r"aff_sub1 +hello\n", story)
    assert re.search(r"colour +röd\n", story)
    assert re.search(r"conversion 1  .*  approved  \(status code 43, by postback", story)
    assert re.search(r"conversion 2  .*  rejected because duplicate  \(status code 12, by postback", story)
    assert re.search(rf"an earlier conversion holds c:{click_id}:0", story)
    upper_with_dashes = str(uuid.UUID(click_id)).upper()
    assert run("explain", upper_with_dashes, "--data-dir", node.data_dir) == story


def test_explain_finds_what_came_with_a_mistyped_id(node: Node) -> None:
    """One that looks like ours but was not minted here: refused, and the refusal is told."""
    click_id = click(node)
    mistyped = click_id[:-1] + f"{int(click_id[-1], 16) ^ 1:x}"
    _, body = get(node, f"/aff_lsr?transaction_id={mistyped}")
    assert body.startswith("success=false;")
    query = "SELECT FROM conversions WHERE transaction_id = $1"
    until(node, lambda: len(asyncio.run(node.fetch(query, mistyped))) == 1)
    story = run("explain", mistyped, "--data-dir", node.data_dir)
    assert "no click of this id is stored" in story
    assert re.search(r"conversion 1  .*  rejected because forged_id  ", story)


def test_explain_json_gives_the_rows(node: Node) -> None:
    """The table's columns under the table's names."""
    click_id = click(node)
    get(node, f"/aff_lsr?transaction_id={click_id}&amount=10")
    until(node, lambda: has_conversions(node, click_id, 1))
    story = json.loads(run("explain", click_id, "--json", "--data-dir", node.data_dir))
    assert set(story) == {"click", "impression", "conversions", "changes", "waiting", "postbacks", "erased_at"}
    assert (story["click"]["offer_id"], story["click"]["extras"]) == (17, {"colour": "röd"})
    [conversion], [change] = story["conversions"], story["changes"]
    assert (conversion["status"], conversion["payout"]) == ("approved", "6.000000")
    assert change["conversion_id"] == conversion["conversion_id"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FORGED, "no click of this id is stored"),
        ("nonsense", "'nonsense' is no id of ours"),
        ("x" * 5000, "is no id of ours"),
        (b"\xff\xfe", "'??' is no id of ours"),
        ("'; DROP TABLE clicks", "is no id of ours"),
    ],
)
def test_explain_of_an_id_that_names_nothing_says_so(node: Node, text: str | bytes, said: str) -> None:
    """In words and with exit code 1; an id need not even be text."""
    told = run("explain", text, "--data-dir", node.data_dir, code=1)
    assert said in told
    assert "no conversion has been received for it" in told


def test_explain_finds_a_forged_postback_by_what_was_sent(node: Node) -> None:
    """Rejected as forged, and stored with the id as it came."""
    sent = f"not-ours-{uuid.uuid4().hex[:8]}"
    assert get(node, f"/aff_lsr?transaction_id={sent}") == ("", f"success=false; err_msg=Invalid Trans. ID #{sent}.;")
    query = "SELECT FROM conversions WHERE transaction_id = $1"
    until(node, lambda: len(asyncio.run(node.fetch(query, sent))) == 1)
    assert "rejected because forged_id" in run("explain", sent, "--data-dir", node.data_dir)


@pytest.mark.parametrize(
    "command",
    [["explain", FORGED], ["apply", str(EXAMPLE_CATALOG)], ["psql", "-c", "SELECT 1"]],
    ids=lambda command: command[0],
)
def test_without_a_running_serve_a_command_says_what_to_do(short_directory: Path, command: list[str]) -> None:
    """One line, exit code 2: no data dir, and one whose `serve` is not running."""
    for place in (short_directory / "nowhere", short_directory):
        told = run(command[0], "--data-dir", place, *command[1:], code=2)
        assert told == (
            f"clickedge: no running `clickedge serve` on {place} and no --database:"
            " start it, or say --data-dir DIR or --database URL\n"
        )


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter22@127.0.0.1:1/x", "nonsense", "postgresql://u:hunter22@h:port/x"]
)
def test_a_database_that_cannot_be_had_is_one_line(url: str) -> None:
    """Exit code 2, and the password is not repeated."""
    told = run("explain", FORGED, "--database", url, code=2)
    assert told.startswith("clickedge: ")
    assert told.count("\n") == 1
    assert "hunter22" not in told


def revision(node: Node) -> int:
    """The catalog revision in force, in the database."""
    return int(asyncio.run(node.fetch("SELECT max(revision) AS n FROM catalog_revisions"))[0]["n"])


def test_apply_shows_stores_and_repeats_without_effect(node: Node, tmp_path: Path) -> None:
    """`--dry-run` changes nothing, the second apply says so, stdin works like a file."""
    text = EXAMPLE_CATALOG.read_text().replace('name = "Deal Blog"', 'name = "Deal Blog & Sons"')
    file = tmp_path / "catalog.toml"
    file.write_text(text)
    before = revision(node)
    shown = run("apply", "--dry-run", "--data-dir", node.data_dir, file)
    assert "Deal Blog & Sons" in shown
    assert shown.endswith(f"0 created, 1 updated, 0 archived: dry run, still revision {before}\n")
    assert revision(node) == before
    applied = run("apply", "--data-dir", node.data_dir, file)
    assert applied.endswith(f"0 created, 1 updated, 0 archived: revision {before + 1}\n")
    assert run("apply", "--data-dir", node.data_dir, file) == f"nothing to change: revision {before + 1}\n"
    back = run("apply", "--data-dir", node.data_dir, "-", given=EXAMPLE_CATALOG.read_text())
    assert back.endswith(f"revision {before + 2}\n")


def test_apply_names_every_fault_and_changes_nothing(node: Node, tmp_path: Path) -> None:
    """File, table, id and field of each; exit code 2; the items without a fault are not stored either."""
    file = tmp_path / "bad.toml"
    file.write_text(
        EXAMPLE_CATALOG.read_text()
        .replace('payout = "5.00"', 'payout = "five"')
        .replace("offer_id = 17, aff_id = 2", "offer_id = 99, aff_id = 2")
        .replace('name = "Deal Blog"', 'name = "Deal Blog & Sons"')
        .replace('currency = "EUR"', 'currency = "EUR"\npayuot = "1"')
    )
    before = revision(node)
    told = run("apply", "--data-dir", node.data_dir, file, code=2)
    for place in ("offers[17].payout", "aliases[SL2].params.offer_id", "offers[18].payuot"):
        assert re.search(rf"{re.escape(str(file))}.*{re.escape(place)}", told), told
    assert revision(node) == before
    assert run("apply", "--data-dir", node.data_dir, EXAMPLE_CATALOG).startswith("nothing to change")


def test_apply_of_a_file_that_is_none_is_one_line(node: Node, tmp_path: Path) -> None:
    """Missing, a folder, no TOML, no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no.toml").write_text("[[offers\n")
    for name in ("missing", ".", "no.toml", "binary"):
        told = run("apply", "--data-dir", node.data_dir, tmp_path / name, code=2)
        assert told.startswith("clickedge: ")
        assert told.count("\n") == 1
        assert str(tmp_path) in told


def test_workers_follow_an_applied_catalog_within_two_seconds(node: Node, tmp_path: Path) -> None:
    """Again and again, and by themselves; they are at the most two looks behind, if the notice of it is lost."""
    file = tmp_path / "catalog.toml"
    for number in range(3):
        file.write_text(EXAMPLE_CATALOG.read_text().replace("/landing?", f"/page{number}?"))
        run("apply", "--data-dir", node.data_dir, file)
        page = f"/page{number}?"
        until(node, lambda page=page: page in get(node, "/aff_c?offer_id=17&aff_id=2")[0])  # type: ignore[misc]
    assert POLL_INTERVAL_S + CHECK_INTERVAL_S < 2
    run("apply", "--data-dir", node.data_dir, EXAMPLE_CATALOG)


def test_psql_asks_the_nodes_own_database(node: Node) -> None:
    """Arguments go to psql, its exit code comes back."""
    assert run("psql", "--data-dir", node.data_dir, "-XAt", "-c", "SELECT current_database()") == "clickedge\n"
    assert "no_such_table" in run("psql", "--data-dir", node.data_dir, "-c", "TABLE no_such_table", code=1)


def test_a_living_nodes_journal_can_be_read(node: Node) -> None:
    """While it is being written: what it holds, each event as JSON, and that no record is damaged."""
    click_id = click(node)
    shown = run("journal", "inspect", node.data_dir)
    assert re.search(r"journal [0-9a-f]{32}  node 0  worker 0  being written", shown)
    assert re.search(r"records   \d+ \(\d+ click", shown)
    assert re.search(r"health    clean", shown)
    records = run("journal", "inspect", "--records", node.data_dir)
    events = [json.loads(line) for line in records.splitlines() if line.startswith("{")]
    assert click_id in [event["session"]["click_id"] for event in events if event["kind"] == "click"]
    assert run("journal", "verify", node.data_dir).endswith("1 journals, 0 with damage\n")


def test_a_flipped_bit_in_a_journal_is_found(node: Node, tmp_path: Path) -> None:
    """In a copy of the node's journals; exit code 1."""
    click(node)
    copy = tmp_path / "journal"
    subprocess.run(["cp", "-r", node.data_dir / "journal", copy], check=True)
    segment = max(copy.glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0x10
    segment.write_bytes(data)
    assert re.search(r"1 journals, 1 with damage", run("journal", "verify", copy, code=1))


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_folder_that_is_none_has_no_journal(command: str, tmp_path: Path) -> None:
    """One line, exit code 2."""
    told = run("journal", command, tmp_path / "nowhere", code=2)
    assert told.startswith(f"clickedge: {tmp_path / 'nowhere'} is no directory")
    assert told.count("\n") == 1


def test_version_and_help_need_nothing() -> None:
    """`--version`, `--help` of every command, and a hint for a command that does not exist."""
    assert RELEASE.fullmatch(run("--version"))
    commands = [
        "apply",
        "audit",
        "backup",
        "cohorts",
        "conversion",
        "doctor",
        "drain",
        "erase",
        "explain",
        "export",
        "import",
        "journal",
        "key",
        "month",
        "postback",
        "postback-test",
        "psql",
        "replay",
        "report",
        "restore",
        "serve",
        "ship",
        "statement",
        "stream",
    ]
    assert re.findall(r"^  ([a-z][a-z-]*) ", run("--help"), re.MULTILINE) == commands
    for command in commands:
        assert run(command, "--help").startswith(f"Usage: clickedge {command} ")
    assert "No such command 'nonsense'" in run("nonsense", code=2)


def test_the_operations_page_names_every_setting_metric_and_log_event() -> None:
    """Whoever adds one describes it there."""
    page = (ROOT / "docs" / "operations.md").read_text()
    sources = "".join(path.read_text() for folder in ("edge", "storage") for path in (ROOT / folder).rglob("*.py"))
    events = set(EVENT.findall(sources))
    assert {"worker_ready", "drain_interrupted", "database_starting", "catalog_applied"} <= events
    wanted = [metric.name for metric in METRICS] + [f"EDGE_{name.upper()}" for name in _SETTINGS] + sorted(events)
    assert [name for name in wanted if name not in page] == []


def test_a_drain_whose_database_is_of_no_use_ends_with_code_2(
    database: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service manager does not start it again and again: somebody must mend the URL."""
    monkeypatch.setenv("EDGE_SECRET", "a-secret-of-sixteen")
    nowhere = database.replace("/test_", "/no_such_")
    assert nowhere != database
    said = run("drain", "--database", nowhere, "--stream", "nats://127.0.0.1:1", "--data-dir", data_dir, "--admin-port", "0", code=2)
    assert 'clickedge: cannot use the database: database "' in said
