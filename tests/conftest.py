"""What every test shares: live comparisons are collected only where PyTorch is installed."""

import importlib.util

import numpy as np
import pytest


def pytest_collection_modifyitems(config, items):
    if importlib.util.find_spec("torch") is not None:
        return
    live = [item for item in items if item.get_closest_marker("torch")]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in live]


@pytest.fixture
def rng():
    return np.random.default_rng(0)
