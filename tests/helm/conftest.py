"""The chart, where there is a helm program to render it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helm_chart import Chart

from scripts.chart import find_helm

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.helm)


@pytest.fixture(scope="session")
def chart() -> Chart:
    helm = find_helm()
    if helm is None:
        pytest.skip("NOT TESTED: the chart; there is no helm (name it by HELM, or put it on PATH)")
    return Chart(helm)
