"""`python -m deploy.grafana.dashboard`: writes dashboards/clickedge.json, which Grafana 11 and later load, from panels.py."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.panels import FIRING, RELEASES, ROWS, Panel, Query

TARGET = Path(__file__).with_name("dashboards") / "clickedge.json"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
HEIGHT = 8
_AnyPanel = timeseries.Panel | stat.Panel | heatmap.Panel


def build() -> dict[str, Any]:
    """The dashboard as Grafana's JSON."""
    board = (
        builder.Dashboard("ClickEdge")
        .uid("clickedge")
        .description("Is it up, is it fast, is it losing, is it behind, is the stream well, what are the conversions doing.")
        .tags(["clickedge"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
    )
    for variable in _variables():
        board.with_variable(variable)
    numbers = count(1)
    for row in ROWS:
        board.with_row(builder.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            board.with_panel(_panel(panel, next(numbers)))
    for annotation in (_annotation("Releases", RELEASES, "blue"), _annotation("Alerts", FIRING, "red")):
        board.annotation(annotation)
    document: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    _title_annotations(document)
    return document


def text() -> str:
    """What stands in the file."""
    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


def _variables() -> tuple[builder.DatasourceVariable | builder.QueryVariable, ...]:
    instances = _labels("instance", 'edge_build_info{job=~"$job"}', "Node").multi(multi=True)
    return (
        builder.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        _labels("job", "edge_build_info", "Job"),
        instances.include_all(include_all=True).all_value(".+").current(models.VariableOption(text="All", value="$__all")),
    )


def _labels(name: str, series: str, label: str) -> builder.QueryVariable:
    return (
        builder.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({series}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _annotation(name: str, expr: str, color: str) -> builder.AnnotationQuery:
    return builder.AnnotationQuery().name(name).datasource(SOURCE).enable(enable=True).icon_color(color).expr(expr)


def _title_annotations(document: dict[str, Any]) -> None:
    """What Prometheus's plugin reads beside the expression; the builder has no word for it."""
    titles = {"Releases": ("{{version}}", "{{instance}}"), "Alerts": ("{{alertname}}", "{{severity}} {{instance}}")}
    for annotation in document["annotations"]["list"]:
        title, detail = titles[annotation["name"]]
        annotation.update({"titleFormat": title, "textFormat": detail, "step": "60s"})


def _panel(panel: Panel, number: int) -> _AnyPanel:
    made = _KINDS[panel.kind](panel)
    made.id(number).title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made.span(panel.width).height(HEIGHT)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        made.with_target(_target(panel, query, letter))
    if panel.max is not None:
        made.max(panel.max)
    return made


def _target(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr).legend_format(query.legend)
    if panel.kind == "number":
        return target.instant()
    if panel.kind == "heatmap":
        return target.range().format(PromQueryFormat.HEATMAP)
    return target.range()


def _lines(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().line_width(1).fill_opacity(5).show_points(common_models.VisibilityMode.NEVER)
    made.legend(common.VizLegendOptions().show_legend(show_legend=True).placement(common_models.LegendPlacement.BOTTOM))
    if panel.is_log:
        made.scale_distribution(common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10))
    else:
        made.axis_soft_min(0)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        if query.right_unit:
            made.override_by_query(
                letter,
                [
                    models.DynamicConfigValue(id_val="unit", value=query.right_unit),
                    models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
                ],
            )
    return made


def _stacked(panel: Panel) -> timeseries.Panel:
    made = _lines(panel).fill_opacity(30)
    return made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))


def _number(panel: Panel) -> stat.Panel:
    steps = [models.Threshold(None, "red"), models.Threshold(0.0, "orange"), models.Threshold(0.25, "green")]
    thresholds = builder.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().decimals(1).thresholds(thresholds).reduce_options(reduced).no_value("no traffic yet")


def _heatmap(panel: Panel) -> heatmap.Panel:
    """Buckets as Prometheus has them; the colour is of a square root, so that the few slow ones are seen."""
    colors = heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Spectral").exponent(0.5)
    return heatmap.Panel().color(colors.steps(64)).y_axis(heatmap.YAxisConfig().unit(panel.unit)).hide_legend()


_KINDS: dict[str, Callable[[Panel], _AnyPanel]] = {
    "lines": _lines,
    "stacked": _stacked,
    "number": _number,
    "heatmap": _heatmap,
}

if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
