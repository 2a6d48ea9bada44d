"""The status codes: one table, one page."""

from pathlib import Path

from edge.tracking.status_codes import REJECTIONS, STATUS_CODES, as_markdown, rejection_code

PAGE = Path(__file__).parents[2] / "docs" / "status-codes.md"


def test_the_page_is_the_table() -> None:
    """docs/status-codes.md is exactly what `as_markdown` writes."""
    assert PAGE.read_text() == as_markdown()


def test_every_reason_has_a_code_and_no_code_has_two_meanings() -> None:
    """Ours begin at 201, above all of TUNE's."""
    codes = [row.code for row in STATUS_CODES]
    assert len(set(codes)) == len(codes)
    assert {row.reason for row in STATUS_CODES if row.status == "rejected"} - {""} == set(REJECTIONS)
    assert all(rejection_code(reason) in codes for reason in REJECTIONS)
    assert all((row.code > 200) != row.is_tune for row in STATUS_CODES)
