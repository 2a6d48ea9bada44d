"""Rows behind a figure, a page at a time."""
