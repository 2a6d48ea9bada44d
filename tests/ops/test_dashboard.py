"""deploy/grafana: the dashboard is what the script makes, asks only for what there is, and keeps the usual rules."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from deploy.grafana import dashboard
from deploy.grafana.panels import FIRING, RELEASES, ROWS, panels
from tests.ops.deployed import ROOT, known_samples, unknown_selectors

GRAFANA_DIR = ROOT / "deploy" / "grafana"
UNITS = {"percentunit", "short", "reqps", "cps", "s", "bytes"}
COLUMNS = 24


@pytest.fixture
def document() -> Any:
    """The file that Grafana loads."""
    return json.loads((GRAFANA_DIR / "dashboards" / "clickedge.json").read_text())


def drawn(document: Any) -> Iterator[Any]:
    """Its panels without the titles of its rows."""
    return (panel for panel in document["panels"] if panel["type"] != "row")


def test_the_file_is_what_the_script_makes() -> None:
    """Nobody edits it by hand, nobody forgets to write it."""
    assert (GRAFANA_DIR / "dashboards" / "clickedge.json").read_text() == dashboard.text()


def test_every_query_names_metrics_and_labels_that_the_page_has() -> None:
    """An empty panel looks like a healthy one."""
    expressions = [RELEASES, *(query.expr for panel in panels() for query in panel.queries)]
    assert unknown_selectors(expressions, known_samples()) == []
    assert FIRING.startswith("ALERTS{")


def test_rows_ask_in_the_order_of_whoever_was_woken_up(document: Any) -> None:
    """Up, fast, losing, behind, the stream, conversions; each panel in its row, no two in one place."""
    titles = [panel["title"] for panel in document["panels"] if panel["type"] == "row"]
    assert [re.findall(r"up|fast|losing|behind|stream|conversions", title)[0] for title in titles] == [
        "up", "fast", "losing", "behind", "stream", "conversions",
    ]  # fmt: skip
    assert [panel["title"] for panel in drawn(document)] == [panel.title for row in ROWS for panel in row.panels]
    ids = [panel["id"] for panel in document["panels"]]
    assert sorted(set(ids)) == sorted(ids)
    assert all(ids)
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < COLUMNS
        taken |= cells


def test_every_panel_has_title_description_unit_and_a_chosen_source(document: Any) -> None:
    """The rules of Grafana's dashboard linter: templated source, job and node; ranges of rates by the panel's step."""
    source = {"type": "prometheus", "uid": "$datasource"}
    titles = [panel["title"] for panel in drawn(document)]
    assert len(set(titles)) == len(titles)
    for panel in drawn(document):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == source
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["legendFormat"]
            assert unchosen(target["expr"]) == []
            assert set(re.findall(r"\b(?:rate|increase)\([^[]*\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval"}
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["instance"]["multi"]
    assert variables["instance"]["includeAll"]


def unchosen(expression: str) -> list[str]:
    """Selectors that are not of the chosen job and, but for what is recorded over nodes, of the chosen nodes."""
    found = re.findall(r"(?<![\w:$])((?:job:)?(?:edge_\w+|up)(?::\w+)?)(\{[^}]*\})?", expression)
    return [
        name + labels
        for name, labels in found
        if 'job=~"$job"' not in labels or not ('instance=~"$instance"' in labels or name.startswith("job:"))
    ]


def test_what_is_provisioned_fits_the_scrape_configuration() -> None:
    """The data source's interval is the scrape interval: `$__rate_interval` is made of it."""
    source = msgspec.yaml.decode((GRAFANA_DIR / "provisioning" / "datasources" / "prometheus.yml").read_bytes())
    scraping = msgspec.yaml.decode((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_bytes())
    [one] = source["datasources"]
    assert one["type"] == "prometheus"
    assert one["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    provider = msgspec.yaml.decode((GRAFANA_DIR / "provisioning" / "dashboards" / "clickedge.yml").read_bytes())
    assert provider["providers"][0]["options"]["path"] == "/etc/grafana/dashboards"
