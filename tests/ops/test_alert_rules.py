"""deploy/prometheus: checked and tested by Prometheus's own tool, and complete."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.faults.test_live_alerts import AT_ONCE, MORE_PATIENT, PATIENT
from tests.faults.test_live_stream_alerts import of_the_stream
from tests.faults.test_patient_alerts import RAISED
from tests.ops.deployed import (
    PROMETHEUS_DIR,
    ROOT,
    RULE_TESTS,
    Rule,
    alerts,
    known_samples,
    rule_tests,
    rules,
    unknown_selectors,
)

_LABEL = re.compile(r'(\w+)="([^"]*)"')
ALERTS = alerts()


def promtool(*arguments: str | Path) -> str:
    """What it says; it must be content."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=PROMETHEUS_DIR
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.debian("prometheus")
def test_the_configuration_and_all_rules_are_valid() -> None:
    """Syntax, expressions and templates of every file that prometheus.yml names, which are all that there are."""
    said = promtool("check", "config", "prometheus.yml")
    assert len(re.findall(r"Checking rules/\w+\.yml", said)) == len(list(PROMETHEUS_DIR.glob("rules/*"))) > 0
    assert sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", said))) == len(rules())


@pytest.mark.debian("prometheus")
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    """Prometheus's own evaluation of made-up series."""
    promtool("test", "rules", path)


def names(rule: Rule) -> str:
    """An alert, and which of its windows."""
    return " ".join([rule.alert, *(rule.labels[label] for label in ("long",) if label in rule.labels)])


@pytest.mark.parametrize("rule", ALERTS, ids=names)
def test_each_alert_is_tested_firing_and_not_firing(rule: Rule) -> None:
    """In one group of series that bears its name there is a time at which it fires and one at which it does not."""
    outcomes = set()
    for test in rule_tests():
        if rule.alert in test.name:
            for check in test.promql_expr_test:
                fired = [dict(_LABEL.findall(sample.labels)) for sample in check.exp_samples]
                outcomes.add(
                    any(
                        labels["alertname"] == rule.alert and labels.get("long") == rule.labels.get("long")
                        for labels in fired
                    )
                )
    assert outcomes == {True, False}


def test_a_living_node_fires_each_alert_that_needs_no_stream() -> None:
    """In some test among tests/faults."""
    assert {rule.alert for rule in ALERTS} - of_the_stream() == AT_ONCE | PATIENT | MORE_PATIENT | RAISED


def test_each_alert_says_what_how_grave_and_where_to_read_on() -> None:
    """Summary, description, severity, and a runbook that exists: a section of its own, and no section too many."""
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in ALERTS:
        assert rule.labels["severity"] in {"page", "ticket"}, rule.alert
        assert set(rule.annotations) == {"summary", "description", "runbook_url"}, rule.alert
        assert rule.annotations["runbook_url"] == f"docs/operations.md#{rule.alert.lower()}"
    section = page.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    texts = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL))
    assert set(texts) == {rule.alert for rule in ALERTS}
    assert [name for name, text in texts.items() if not ("**Look at**" in text and "**Do**" in text)] == []


def test_every_metric_and_label_that_a_rule_names_is_on_the_page() -> None:
    """A rule over a name that nobody exports would never fire, and nobody would know."""
    known = known_samples()
    assert unknown_selectors((rule.expr for rule in rules()), known) == []
    assert unknown_selectors(['edge_requests_total{outcome="unavailble"} + edge_request'], known) == [
        'edge_requests_total{outcome="unavailble"}',
        "edge_request",
    ]
