"""The OpenAPI page's parameters: what the docs show as allowed fits, and nothing has a default that it has not."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from edge.admin.api import OPERATIONS
from edge.admin.api.openapi import describe

PAGE = describe(OPERATIONS)
ALLOWED = {
    "from": ("2026-10-31", "2028-02-29", "2026-10-31T12:00:00Z", "2026-10-31T12:00:00.5+05:30"),
    "to": ("2026-12-30", "2026-10-31T23:59:59-08:00"),
    "date": ("2026-10-31",),
    "month": ("2026-10", "2026-10-01"),
    "hour": ("2026-10-31T12:00:00Z", "2026-10-31T12:00:00+05:30"),
    "timezone": ("Asia/Kolkata", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC"),
    "windows": ("7,30,90", "365,1460", ",".join(map(str, range(1, 25)))),
    "dimensions": ("offer,extra.colour", "extra.shop margin"),
}


def parameters(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of the query parameters of that name; a list's is that of its values."""
    for path, methods in PAGE["paths"].items():
        for one in methods.get("get", {}).get("parameters", ()):
            if one["in"] == "query" and one["name"] == name:
                yield path, one["schema"].get("items", one["schema"])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_be_asked_fits_the_page(name: str) -> None:
    """Days at the end of a month, times with their offset, any zone: a client that checks before it sends may send them."""
    found = [(path, schema) for path, schema in parameters(name) if name != "month" or "/reports" in path]
    assert found
    refused = [
        (path, value) for path, schema in found for value in ALLOWED[name] if not re.search(schema.get("pattern", ""), value)
    ]
    assert refused == []


def test_a_filter_that_nobody_sends_has_no_default() -> None:
    """A client that fills in what the page says would be shown only contacts who bought."""
    assert [schema for _, schema in parameters("has_converted") if "default" in schema] == []
