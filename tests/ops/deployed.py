"""What stands in deploy/: rules, alerts and their tests as structs; and the samples of a page that expressions may name."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from edge.admin.metrics import Slot, render
from edge.counters import Counters

ROOT = Path(__file__).parents[2]
PROMETHEUS_DIR = ROOT / "deploy" / "prometheus"
RULE_FILES = sorted((PROMETHEUS_DIR / "rules").glob("*.yml"))
RULE_TESTS = sorted((PROMETHEUS_DIR / "tests").glob("*.yaml"))
_SELECTOR = re.compile(r"\b((?:job:)?edge_\w+(?::\w+)?)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_SET_BY_PROMETHEUS = {"job", "instance"}

Samples = dict[str, list[dict[str, str]]]
"""The label sets under which a name is on a page."""


class Rule(msgspec.Struct, frozen=True):
    """An alert, or a recorded rule."""

    expr: str
    alert: str = ""
    record: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def is_paging(self) -> bool:
        return self.labels.get("severity") == "page"


class Group(msgspec.Struct, frozen=True):
    """Rules that are evaluated one after the other."""

    name: str
    rules: list[Rule]


class RuleFile(msgspec.Struct, frozen=True):
    """A file of groups."""

    groups: list[Group]


class Expected(msgspec.Struct, frozen=True):
    """A series that an expression must give, written as its labels."""

    labels: str


class Check(msgspec.Struct, frozen=True):
    """What an expression must give at a time."""

    eval_time: str
    expr: str
    exp_samples: list[Expected]


class RuleTest(msgspec.Struct, frozen=True):
    """Series, and what the rules make of them."""

    name: str
    promql_expr_test: list[Check]


class RuleTestFile(msgspec.Struct, frozen=True):
    """A file of tests."""

    tests: list[RuleTest]


def rules() -> list[Rule]:
    """All of them, in the order of the files."""
    files = (msgspec.yaml.decode(path.read_bytes(), type=RuleFile) for path in RULE_FILES)
    return [rule for file in files for group in file.groups for rule in group.rules]


def alerts() -> list[Rule]:
    """The rules that may wake somebody."""
    return [rule for rule in rules() if rule.alert]


def rule_tests() -> list[RuleTest]:
    """All tests of all files."""
    files = (msgspec.yaml.decode(path.read_bytes(), type=RuleTestFile) for path in RULE_TESTS)
    return [test for file in files for test in file.tests]


def page_samples(page: str) -> Samples:
    """A page's names, with `_bucket`, `_count` and `_sum`, and the labels of each sample."""
    samples: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    return samples


def known_samples() -> Samples:
    """What a node with one process of each kind has on its page, and what the rules record of it."""
    slots = [Slot(role, 0, Counters.private()) for role in ("worker", "drain", "sender", "admin", "shipper")]
    return {**page_samples(render(slots).decode()), **{rule.record: [{}] for rule in rules() if rule.record}}


def unknown_selectors(expressions: Iterable[str], known: Samples) -> list[str]:
    """Selectors of ours that no sample can ever satisfy: a name or a label's value that does not exist."""
    return [
        selector
        for expression in expressions
        for selector, name, matchers in selectors(expression)
        if not any(_fits(labels, matchers) for labels in known.get(name, []))
    ]


def selectors(expression: str) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Those of our names: each as it stands, its name and its matchers (label, operator, value)."""
    for found in _SELECTOR.finditer(expression):
        matchers = [matcher for matcher in _MATCHER.findall(found[2] or "") if matcher[0] not in _SET_BY_PROMETHEUS]
        yield found[0], found[1], matchers


def _fits(labels: dict[str, str], matchers: list[tuple[str, str, str]]) -> bool:
    return all(name in labels and _matches(labels[name], operator, wanted) for name, operator, wanted in matchers)


def _matches(value: str, operator: str, wanted: str) -> bool:
    is_same = bool(re.fullmatch(wanted, value)) if "~" in operator else value == wanted
    return is_same != operator.startswith("!")
