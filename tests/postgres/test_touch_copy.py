"""Our binary COPY of clicks against asyncpg's: whatever a row holds, both store the same."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.postgres.copy import TouchRow, Uuid
from storage.postgres.touch_copy import copy_rows, encode_row
from tests.postgres.drains import Bench

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_INT4 = st.integers(-(2**31), 2**31 - 1)
_MONEY = st.decimals(-(10**12) + 1, 10**12 - 1, places=6) | st.sampled_from(
    [
        Decimal(text)
        for text in ("0", "5", "0.000001", "-0.5", "1E+3", "10000", "10000.0001", "999999999999.999999", "-0")
    ]
)
_ID = st.binary(min_size=16, max_size=16).map(Uuid)
_BY_NAME = {
    "click_id": _ID,
    "clicked_at": st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda one: one.replace(tzinfo=UTC)),  # noqa: DTZ001
    "ip": st.none() | st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    "visitor": st.none() | _ID,
    "first_click_id": st.none() | _ID,
    "flags": st.lists(_TEXT, max_size=3),
    "extras": st.dictionaries(_TEXT, _TEXT, max_size=3),
    "catalog_revision": st.integers(-(2**63), 2**63 - 1),
}
_BY_TYPE = {int: _INT4, str: _TEXT, Decimal: _MONEY}
ROWS = st.builds(
    TouchRow,
    **{name: _BY_NAME[name] if name in _BY_NAME else _BY_TYPE[kind] for name, kind in TouchRow.__annotations__.items()},
)
_NOTHING: dict[Any, Any] = {
    int: 0,
    str: "",
    Decimal: Decimal(0),
    Uuid: Uuid(bytes(16)),
    datetime: datetime(2026, 11, 22, tzinfo=UTC),
}
PLAIN = TouchRow._make(_NOTHING.get(kind) for kind in TouchRow.__annotations__.values())._replace(flags=[], extras={})


async def stored(bench: Bench, table: str) -> list[dict[str, Any]]:
    """The rows of a table, in the order in which they came."""
    return [dict(row) for row in await bench.conn.fetch(f"SELECT * FROM {table}")]


async def test_both_ways_store_the_same_rows(bench: Bench) -> None:
    """Every column, over all that its type can hold: texts in any script, both ends of money, addresses of both kinds."""
    rows: list[TouchRow] = []

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(ROWS)
    def collect(row: TouchRow) -> None:
        rows.append(row)

    collect()
    for table in ("ours", "theirs"):
        await bench.conn.execute(f"CREATE TEMP TABLE {table} (LIKE clicks)")
    await copy_rows(bench.conn, "ours", rows)
    await bench.conn.copy_records_to_table("theirs", records=rows, columns=TouchRow._fields)
    ours, theirs = await stored(bench, "ours"), await stored(bench, "theirs")
    assert len(ours) == len(rows) >= 100
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other


@pytest.mark.parametrize(
    "fields",
    [
        {"offer_id": 2**31},
        {"catalog_revision": 2**63},
        {"cost": Decimal("NaN")},
        {"payout": Decimal("Infinity")},
        {"aff_sub1": "\ud800"},
        {"extras": {"a": "\ud800"}},
        {
            "click_id": UUID(int=0),
            "clicked_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10**6 // 2),
            "node_id": -(2**31) - 1,
        },
    ],
)
def test_what_no_column_can_hold_is_the_rows_own_fault(fields: dict[str, Any]) -> None:
    """DataError, by which a batch is bisected, and nothing else."""
    with pytest.raises(asyncpg.DataError, match="no column can hold"):
        encode_row(PLAIN._replace(**fields))


async def test_a_row_that_fails_halfway_costs_the_whole_copy(bench: Bench) -> None:
    """No half of a batch: COPY is one statement."""
    await bench.conn.execute("CREATE TEMP TABLE ours (LIKE clicks)")
    with pytest.raises(asyncpg.DataError):
        await copy_rows(bench.conn, "ours", [PLAIN] * 700 + [PLAIN._replace(node_id=2**31)])
    assert await stored(bench, "ours") == []
    await copy_rows(bench.conn, "ours", [])
    assert await stored(bench, "ours") == []
