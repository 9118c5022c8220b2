"""The dashboard and the alert rules ask only for what the node tells, and Prometheus reads them.

Covered: every expression's metrics and labels against the code, its syntax by promtool, the places
of the panels, and alerts that fire when they should and not before. Not covered: how it looks.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.web.metrics import METRICS
from tests.peers import require

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "marginalia.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}

ELSEWHERE = {"up", "process_resident_memory_bytes"}
"""Told by Prometheus and its library."""
OF_EACH = {"instance", "job", "le"}
HISTOGRAMS = {name for name, each in METRICS.items() if each.kind == "histogram"}


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title of every panel and the name of every alert, with an expression of it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for name, rule in ALERTS.items():
        yield name, rule["expr"]


def told_as(name: str) -> str:
    """Return the metric of a name in an expression."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in HISTOGRAMS else name


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    return {
        told_as(name) for name in re.findall(r"\b(?:marginalia|process)_\w+|\bup\b", expression)
    }


def labels_in(expression: str) -> set[str]:
    """Return the labels that an expression selects or groups by."""
    found = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\b(?:by|on|group_right|group_left)\s*\(([^)]*)\)", expression):
        found |= {each.strip() for each in group.split(",") if each.strip()}
    return found


@pytest.mark.parametrize(("title", "expression"), [*queries()])
def test_only_what_is_told_is_asked_for(title: str, expression: str) -> None:
    """Metrics that exist, with labels that these have."""
    asked = metrics_in(expression)
    assert asked, title
    assert asked <= {*METRICS, *ELSEWHERE}
    known = {label for name in asked for label in (METRICS[name].labels if name in METRICS else ())}
    assert labels_in(expression) <= known | OF_EACH


def test_all_that_is_told_is_shown_or_watched() -> None:
    """A number that nobody looks at would only cost."""
    asked = {name for _, expression in queries() for name in metrics_in(expression)}
    assert {*METRICS} - asked == set()


def test_legends_and_sentences_use_labels_that_are_left() -> None:
    """What `sum by` drops would be written as nothing."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = labels_kept(target["expr"])
            assert kept is None or used <= kept, panel["title"]
    for name, rule in ALERTS.items():
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        kept = labels_kept(rule["expr"])
        assert kept is None or used <= kept, name
        assert rule["labels"]["severity"] in {"page", "ticket"}


def labels_kept(expression: str) -> set[str] | None:
    """Return the labels that an outer aggregation leaves; None when all stay."""
    outer = re.match(
        r"(?:histogram_quantile\([\d.]+, )?(?:sum|max|min|count)(?: by \(([^)]*)\))?\s*\(",
        expression,
    )
    return None if outer is None else {each.strip() for each in (outer[1] or "").split(",")}


def test_panels_lie_side_by_side_under_their_rows() -> None:
    """24 columns, nothing over another, an id of its own each, and the rows in their order."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == [
        *("State", "Throughput", "Stage seconds", "Queue", "Deliveries", "Door"),
        "GPU, models and machine",
    ]


def test_prometheus_reads_every_expression(tmp_path: Path) -> None:
    """Those of the panels as rules, with Grafana's variables filled in."""
    require("promtool")
    rules = [
        {"record": f"panel:{number}", "expr": filled(expression)}
        for number, (_, expression) in enumerate(queries())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for file in (path, FOLDER / "alerts.yaml"):
        verdict = promtool("check", "rules", str(file))
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def filled(expression: str) -> str:
    """Return the expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*")


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Prometheus' own checks."""
    call = ["promtool", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    """Each of these is quiet while all is well, and comes after the fifth minute went wrong."""
    require("promtool")
    node = {"instance": "node:8081", "job": "marginalia"}
    wrong: dict[str, tuple[str, dict[str, str], str]] = {
        "MarginaliaNotReady": ("marginalia_ready", {}, "1x5 0x60"),
        "MarginaliaPartFailing": ("marginalia_part_up", {"part": "archive pacs"}, "1x5 0x60"),
        "MarginaliaQueueOld": ("marginalia_queue_oldest_age_seconds", {}, "0x5 2000x60"),
        "MarginaliaDeliveryRefused": (
            "marginalia_deliveries",
            {"destination": "pacs", "state": "refused"},
            "0x5 2x60",
        ),
        "MarginaliaDeliveryLate": (
            "marginalia_delivery_oldest_age_seconds",
            {"destination": "pacs"},
            "0x5 4000x60",
        ),
        "MarginaliaJobFailed": (
            "marginalia_jobs",
            {"route": "ct", "state": "failed"},
            "3x5 4x60",
        ),
        "MarginaliaDiskLow": ("marginalia_disk_free_bytes", {}, "90e9x5 2e9x60"),
        "MarginaliaGone": ("up", {}, "1x5 0x60"),
    }
    tests: list[dict[str, Any]] = []
    for name, (metric, labels, values) in wrong.items():
        series = [{"series": written(metric, node | labels), "values": values}]
        if metric == "marginalia_disk_free_bytes":
            least = written("marginalia_disk_least_free_bytes", node)
            series.append({"series": least, "values": "2e9x66"})
        tests.append(
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                        "eval_time": at,
                        "exp_samples": samples,
                    }
                    for at, samples in (
                        ("4m", []),
                        ("15m", [{"labels": "{}", "value": 1}]),
                    )
                ],
            }
        )
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(FOLDER / "alerts.yaml")], "tests": tests}))
    verdict = promtool("test", "rules", str(path))
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def written(metric: str, labels: dict[str, str]) -> str:
    """Return a series as promtool reads it."""
    inner = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{inner}}}"
