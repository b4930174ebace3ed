"""The autoscaler's metrics exist: names, rules and PromQL agree with each other and with what Triton exports."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.deploy.conftest import KUBERNETES

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install -r requirements/deploy.lock)")


def rules() -> dict[str, dict[str, Any]]:
    values = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())
    return {rule["name"]["as"]: rule for rule in values["rules"]["custom"]}


def query(rule: dict[str, Any]) -> str:
    """As the adapter fills it in for two pods."""
    matchers = 'namespace="edgedit",pod=~"triton-a|triton-b"'
    return rule["metricsQuery"].replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")


@pytest.mark.deploy
@pytest.mark.parametrize("name", sorted(rules()))
def test_queries_are_promql(name: str) -> None:
    promql = pytest.importorskip("promql_parser", reason="not installed (pip install -r requirements/deploy.lock)")
    rule = rules()[name]
    promql.parse(query(rule))
    promql.parse(rule["seriesQuery"])
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    with pytest.raises(ValueError):
        promql.parse(query(rule)[:-1] + "((")


def test_the_autoscaler_asks_for_them(rendered: Callable[[str], list[dict[str, Any]]]) -> None:
    (triton,) = (
        resource
        for resource in rendered("production")
        if resource["kind"] == "HorizontalPodAutoscaler" and resource["metadata"]["name"] == "triton"
    )
    asked = {metric["pods"]["metric"]["name"] for metric in triton["spec"]["metrics"]}
    assert asked == rules().keys() == {"triton_queue_microseconds_per_request", "nv_inference_pending_request_count"}


@pytest.mark.triton
def test_triton_exports_them(triton) -> None:
    with urllib.request.urlopen(f"http://{triton.metrics}/metrics", timeout=30) as answer:
        exported = set(re.findall(r"^(nv_\w+)\{", answer.read().decode(), re.MULTILINE))
    used = {name for rule in rules().values() for name in re.findall(r"\bnv_\w+", rule["metricsQuery"])}
    assert len(used) == 3 and used <= exported
