"""docs: no table has a row twice, which is what a merge of two versions leaves behind, and none names a file that is gone."""

import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()


def doubled(names: list[str]) -> list[str]:
    """Those that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


@pytest.mark.parametrize("title", ["Commands", "Settings", "The data dir", "Metrics", "Log events"])
def test_no_row_of_the_operators_page_is_there_twice(title: str) -> None:
    """A command, setting, file, metric or log event has one row in its section, and one meaning."""
    section = OPERATIONS.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    firsts = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    names = [name for first in firsts for name in re.findall(r"`([^`]+)`", first)]
    assert len(names) > 8
    assert doubled(names) == []


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_no_paragraph_is_there_twice(path: Path) -> None:
    """Nor the title of a section or the bold beginning of a point within one."""
    for section in re.split(r"^## ", path.read_text(), flags=re.MULTILINE):
        titles = re.findall(r"^(?:### .*|\* \*\*[^*]+\*\*)", section, re.MULTILINE)
        assert doubled(titles) == [], section.partition("\n")[0]


def test_every_module_and_folder_that_a_page_names_is_there() -> None:
    """A newcomer who looks for it finds it: `lane.py`, `storage/journal/`, `catalog*.py`."""
    folders = [ROOT / name for name in ("benchmarks", "deploy", "docs", "edge", "examples", "storage", "tests")]
    found = [one for folder in folders for one in (folder, *folder.rglob("*")) if "__pycache__" not in one.parts]
    present = {f"/{one.relative_to(ROOT)}{'/' if one.is_dir() else ''}" for one in found}
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    named = {name for page in pages for name in re.findall(r"`([\w/*]+(?:\.py|/))`", page.read_text())}
    local = {name for name in named if name.endswith(".py") or name.split("/")[0] in {one.name for one in folders}}
    assert len(local) > 100
    assert [name for name in sorted(local) if not any(fnmatch(one, f"*/{name}") for one in present)] == []
