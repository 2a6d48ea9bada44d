"""`clickedge conversion` and `clickedge month`, as a person types them, on a running node."""

import asyncio
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import Node
from tests.wire.test_commands import click, get, run, until

CONVERSION = "SELECT conversion_id, status, payout FROM conversions WHERE transaction_id = $1 ORDER BY received_at"


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node for all tests of this file: none of them stops it."""
    node = Node(short_directory / f"changes-{uuid.uuid4().hex[:8]}", env={"EDGE_TIMEZONE": "Europe/Berlin"})
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def convert(node: Node, parameters: str = "") -> tuple[str, str]:
    """A click and its stored conversion: both ids."""
    click_id = click(node)
    get(node, f"/aff_lsr?transaction_id={click_id}{parameters}")
    until(node, lambda: len(asyncio.run(node.fetch(CONVERSION, click_id))) == 1)
    return click_id, str(asyncio.run(node.fetch(CONVERSION, click_id))[0]["conversion_id"])


def change(node: Node, *arguments: str, code: int = 0, given: str = "") -> str:
    """What `clickedge conversion …` prints."""
    return run("conversion", *arguments, "--data-dir", node.data_dir, code=code, given=given)


def test_a_conversion_is_adjusted_reversed_and_approved_again(node: Node) -> None:
    """Each says what has changed; `show` and `explain` tell the whole story, with reason, note and who it was."""
    click_id, one = convert(node, "&amount=10")
    told = change(
        node, "adjust", one, "--payout", "4.5", "--amount", "8", "--reason", "wrong_amount", "--note", "as agreed"
    )
    assert told == f"{one}: amount 10.000000 -> 8, payout 6.000000 -> 4.5\n"
    assert change(node, "reverse", one.upper().replace("-", ""), "--reason", "returned") == (
        f"{one}: status approved -> reversed\n"
    )
    assert change(node, "approve", one) == f"{one}: status reversed -> approved\n"
    for story in (change(node, "show", one), run("explain", click_id, "--data-dir", node.data_dir)):
        assert re.search(r"approved  \(status code 215, by postback", story)
        assert re.search(r"adjusted .* by \w+: because wrong_amount, amount now 8\.000000, payout now 4\.500000", story)
        assert "booked -2.000000 -1.500000 +0.000000 in the hour of" in story
        assert "; as agreed\n" in story
        assert re.search(r"reversed .*: it was approved, because returned", story)


def test_many_ids_are_told_one_by_one(node: Node) -> None:
    """From stdin as from the command line; one that cannot be does not stop the others, and the code says so."""
    (_, first), (_, second) = convert(node), convert(node)
    unknown = str(uuid.uuid4())
    told = change(
        node, "reject", "-", "--reason", "fraud", code=1, given=f"{first}\n\n {unknown} \n{second}\n{first}\n"
    )
    assert sorted(told.splitlines()) == sorted(
        [
            f"{first}: status approved -> rejected",
            f"{unknown}: there is no such conversion",
            f"{second}: status approved -> rejected",
        ]
    )
    assert change(node, "reject", first, "--reason", "fraud", code=1) == f"{first}: it is rejected already\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["approve", "nonsense"], "'nonsense' is no conversion id"),
        (["approve", "{id}", "--payout", "1e9"], "--payout '1e9': allowed is a plain amount"),
        (["adjust", "{id}", "--amount", "-5", "--reason", "other"], "--amount '-5'"),
        (["adjust", "{id}", "--reason", "other"], "nothing to adjust"),
        (["adjust", "{id}", "--amount", "1"], "say why: --reason returned | cancelled | fraud"),
        (["reverse", "{id}"], "say why"),
        (["reject", "{id}", "--reason", "whim"], "'whim' is not one of"),
        (["reject", "{id}", "--reason", "other", "--note", "x" * 251], "--note: at most 250 characters"),
        (["reject", "{id}", "x", "--reason", "other"], "'x' is no conversion id"),
        (["reject", "-", "--reason", "other"], "no conversion ids on stdin"),
    ],
)
def test_bad_input_changes_nothing(node: Node, arguments: list[str], said: str) -> None:
    """One clear line (click's own usage before it, at most), exit code 2."""
    click_id, one = convert(node)
    told = change(node, *(argument.format(id=one) for argument in arguments), code=2)
    assert said in told
    assert asyncio.run(node.fetch(CONVERSION, click_id))[0]["status"] == "approved"


def test_what_a_later_postback_did_is_told(node: Node) -> None:
    """By the id of the conversion that it changed, and by its own, which has no row."""
    click_id, one = convert(node)
    get(node, f"/aff_lsr?transaction_id={click_id}&status=reversed&adv_sub=refund")
    query = "SELECT cause_id FROM conversion_changes WHERE conversion_id = $1 AND cause_id IS NOT NULL"
    until(node, lambda: len(asyncio.run(node.fetch(query, one))) == 1)
    cause = str(asyncio.run(node.fetch(query, one))[0]["cause_id"])
    told = change(node, "show", cause)
    assert told.startswith(f"{cause} is no conversion of its own: it changed this one\nconversion  ")
    assert f"asked for by conversion {cause}" in told
    assert one in told
    assert change(node, "show", str(uuid.uuid4()), code=1).endswith("there is no such conversion\n")


def test_months_are_closed_in_the_nodes_time_zone(node: Node) -> None:
    """Once, and only when they are over; listed; opened again."""

    def month(*arguments: str, code: int = 0) -> str:
        return run("month", *arguments, "--data-dir", node.data_dir, code=code)

    assert month("list") == "no month is closed\n"
    until(node, lambda: len(asyncio.run(node.fetch("SELECT FROM installation WHERE name = 'timezone'"))) == 1)
    told = month("close", "2026-01")
    assert told == "2026-01 is closed: 2025-12-31 23:00:00+00:00 to 2026-01-31 23:00:00+00:00\n"
    assert month("close", "2026-01", code=2) == "clickedge: 2026-01 is closed already\n"
    assert re.match(r"2026-01  2025-12-31 23:00:00\+00:00 to .* by \w+\n", month("list"))
    assert month("reopen", "2026-01") == "2026-01 is open\n"
    assert month("reopen", "2026-01", code=2) == "clickedge: 2026-01 is not closed\n"
    assert "9998-01 is not over" in month("close", "9998-01", code=2)
    assert month("close", "January", code=2) == "clickedge: 'January' is no month: write it 2026-10\n"
