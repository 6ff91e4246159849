"""What every test shares: live comparisons are collected only where what they compare with is installed."""

import importlib.util
import warnings

import chromium
import numpy as np
import pytest
from numba import config as numba_config

if numba_config.ENABLE_CUDASIM:
    import fast_simulator
    import launch_types

    fast_simulator.install()
    launch_types.install()


def pytest_collection_modifyitems(config, items):
    for mark, works in WORKS.items():
        live = [item for item in items if item.get_closest_marker(mark)]
        if live and not works():
            config.hook.pytest_deselected(items=live)
            items[:] = [item for item in items if item not in live]


def _cuda_works():
    """Whether CUDA kernels can run: on a GPU, or in the simulator (NUMBA_ENABLE_CUDASIM=1)."""
    from kernels import cuda

    return cuda.is_available()


def _notebooks_work():
    """Whether there is what runs a notebook."""
    return all(importlib.util.find_spec(name) is not None for name in ("nbclient", "ipykernel"))


def _torch_works():
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def _torchvision_works():
    """Whether torchvision is installed with its operators; a build for CUDA lacks them where CUDA is not."""
    if not _torch_works() or importlib.util.find_spec("torchvision") is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torch
            from torchvision.ops import nms

            nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except (ImportError, RuntimeError, AttributeError):
            return False
    return True


WORKS = {
    "torch": _torch_works,
    "torchvision": _torchvision_works,
    "cuda": _cuda_works,
    "notebooks": _notebooks_work,
    "browser": chromium.works,
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def fails(capsys):
    """Return a function that runs a command which must end in one line, and gives that line."""

    from tinyseg import cli

    def call(*arguments):
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1 and lines[0].startswith("tinyseg: error: "), (code, lines)
        return lines[0].removeprefix("tinyseg: error: ")

    return call
