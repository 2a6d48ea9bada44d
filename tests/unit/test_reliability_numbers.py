"""docs/reliability.md: each of the 27 promises has its tests, and each test of one is named there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
NUMBERS = range(1, 28)


def marked() -> dict[int, list[str]]:
    """By number: the tests that are marked with it, as the page names them. Nothing is imported."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.reliability":
                    [number] = [ast.literal_eval(keyword.value) for keyword in mark.keywords]
                    found[number].append(f"`{path.relative_to(TESTS)}`: `{getattr(node, 'name', '')}`")
    return dict(found)


def rows() -> dict[int, str]:
    """By number: what the page says of its tests."""
    return {int(number): tests for number, tests in re.findall(r"^\| (\d+) \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE)}


def test_every_number_has_a_test() -> None:
    """None is only promised."""
    assert sorted(marked()) == list(NUMBERS)


def test_the_page_names_the_tests_of_every_number() -> None:
    """All of them, and no other."""
    assert sorted(rows()) == list(NUMBERS)
    assert {number: tests.split("<br>") for number, tests in rows().items()} == marked()
