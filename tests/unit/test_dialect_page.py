"""docs/dialects.md: what it says of the tables and of the tests is what they are."""

from pathlib import Path

from edge.tracking.dialect_page import as_markdown
from edge.tracking.vendors import VENDORS
from tests.wire.dialect_examples import features_as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"


def test_the_page_shows_the_tables_as_they_are() -> None:
    """Who adds a row adds it to the page; `as_markdown` is that part."""
    assert as_markdown() in PAGE.read_text("utf-8")


def test_the_page_names_a_test_for_each_thing_that_a_vendor_can_do() -> None:
    """A cell is an example that runs; an empty one says that the vendor has no such thing here."""
    assert features_as_markdown() in PAGE.read_text("utf-8")


def test_the_page_says_how_to_move_from_every_vendor() -> None:
    """A heading each."""
    text = PAGE.read_text("utf-8")
    assert [vendor.title for vendor in VENDORS if f"* **{vendor.title}**" not in text] == []
