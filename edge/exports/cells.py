"""Cells that a spreadsheet would take for a formula."""

FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""OWASP's list, the full-width forms too: a text that begins so may be run by who opens the file."""


def defuse(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would otherwise calculate."""
    return f"'{text}" if text and text[0] in FORMULA_STARTS else text
