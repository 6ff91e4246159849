"""The switch that keeps to direct convolution."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
import tinyseg
from kernels.cpu import planner
from tinyseg import backend

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def same_choice_afterwards():
    with backend.use_backend("cpu"), tinyseg.use_winograd(True):
        yield


def suited(rng):
    """Return an input and a weight that Winograd's method is chosen for."""
    x, weight = rng.standard_normal((1, 48, 40, 40)), rng.standard_normal((48, 48, 3, 3))
    return x.astype(np.float32), weight.astype(np.float32)


def convolve(x, weight):
    return tinyseg.ops.conv2d(tinyseg.Tensor(x), tinyseg.Tensor(weight), padding=1).numpy()


def chosen(x, weight):
    """Return the algorithm of a convolution."""
    calls = []
    with backend.record_kernels(calls.append):
        convolve(x, weight)
    return backend.planned_algorithms(calls[0])["y"]


def test_forbidden_it_is_not_chosen(rng):
    x, weight = suited(rng)
    assert chosen(x, weight) == "winograd"
    with tinyseg.use_winograd(False):
        assert chosen(x, weight) != "winograd"
        with tinyseg.use_winograd(True):
            assert chosen(x, weight) == "winograd"
        assert not tinyseg.uses_winograd()
    assert tinyseg.uses_winograd()


def test_as_a_call_it_lasts(rng):
    tinyseg.use_winograd(False)
    assert not tinyseg.uses_winograd() and chosen(*suited(rng)) != "winograd"
    tinyseg.use_winograd(True)
    assert tinyseg.uses_winograd()


def test_the_rounding_is_as_documented(rng):
    x, weight = suited(rng)
    exact = kernels.get("naive").conv2d_forward(x.astype(np.float64), weight.astype(np.float64), padding=1)
    largest = np.abs(exact).max()
    with tinyseg.use_winograd(False):
        direct = convolve(x, weight)
    by_winograd = convolve(x, weight)
    assert np.abs(direct - exact).max() / largest < 1e-6
    assert np.abs(by_winograd - exact).max() / largest < 1e-5
    assert np.any(direct != by_winograd)


def test_float64_is_never_touched(rng):
    x, weight = (array.astype(np.float64) for array in suited(rng))
    assert chosen(x, weight) != "winograd"
    with tinyseg.use_winograd(False):
        direct = convolve(x, weight)
    assert np.array_equal(direct, convolve(x, weight))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spreads_as_in_the_textbook(rng, value):
    x, weight = suited(rng)
    x[0, 3, 7, 9] = value
    expected = kernels.get("naive").conv2d_forward(x, weight, padding=1)
    with np.errstate(invalid="ignore"):
        for allowed in (True, False):
            with tinyseg.use_winograd(allowed):
                y = convolve(x, weight)
            assert np.array_equal(np.isnan(y), np.isnan(expected))
            assert np.array_equal(np.isposinf(y), np.isposinf(expected))


@pytest.mark.parametrize(("text", "allowed"), [("0", False), ("1", True), ("", True), (None, True)])
def test_the_environment_chooses_at_start(rng, monkeypatch, text, allowed):
    monkeypatch.setitem(backend._state, "winograd", None)
    if text is None:
        monkeypatch.delenv("TINYSEG_WINOGRAD", raising=False)
    else:
        monkeypatch.setenv("TINYSEG_WINOGRAD", text)
    planner.allow_winograd(not allowed)
    assert (chosen(*suited(rng)) == "winograd") is allowed  # read when the first kernel runs
    assert tinyseg.uses_winograd() is allowed


def test_a_block_gives_back_what_the_environment_chose(monkeypatch):
    monkeypatch.setitem(backend._state, "winograd", None)
    monkeypatch.setenv("TINYSEG_WINOGRAD", "0")
    with tinyseg.use_winograd(True):
        assert tinyseg.uses_winograd()
    assert not tinyseg.uses_winograd()


def test_wrong_values(monkeypatch):
    with pytest.raises(TypeError, match="allowed is 0; expected True or False"):
        tinyseg.use_winograd(0)
    monkeypatch.setitem(backend._state, "winograd", None)
    monkeypatch.setenv("TINYSEG_WINOGRAD", "no")
    with pytest.raises(ValueError, match="environment variable TINYSEG_WINOGRAD is 'no'; expected 0 or 1"):
        backend.kernel("relu_forward")


def test_importing_tinyseg_loads_no_kernels():
    code = "import tinyseg, sys; print([name for name in sys.modules if name.split('.')[0] == 'kernels'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
