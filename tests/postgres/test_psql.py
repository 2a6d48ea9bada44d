"""`clickedge psql`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli.psql import split_password
from edge.errors import UserError


def test_psql_opens_the_running_serve_s_database(postgres_url: str, short_directory: Path) -> None:
    """Arguments reach psql; the password does not reach the command line."""
    assert postgres_url
    show = "SELECT 'in ' || current_database(); \\! tr '\\0' ' ' < /proc/$PPID/cmdline"
    done = subprocess.run(
        [sys.executable, "-c", "from edge.cli.psql import psql; psql()", "--data-dir", str(short_directory / "embedded"),
         "-X", "-A", "-t"],
        input=show, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=dict(os.environ),
    )  # fmt: skip
    password = postgres_url.partition("clickedge:")[2].partition("@")[0]
    assert "in clickedge" in done.stdout
    assert "--dbname" in done.stdout
    assert password not in done.stdout


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@h:1/d?sslmode=require", ("postgresql://u@h:1/d?sslmode=require", "p@ss")),
        ("postgresql://u@/d?host=/run/x&port=5432", ("postgresql://u@/d?host=/run/x&port=5432", "")),
        ("postgres://h/d?password=q%26", ("postgres://h/d", "q&")),
        ("postgresql://h", ("postgresql://h", "")),
    ],
)
def test_the_password_is_taken_out_of_the_url(url: str, expected: tuple[str, str]) -> None:
    """Wherever it stands, and nothing else changes."""
    assert split_password(url) == expected


@pytest.mark.parametrize("url", ["mysql://h/d", "host=h dbname=d", "postgresql://[::1/d"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """With one clear line."""
    with pytest.raises(UserError, match="database URL"):
        split_password(url)
