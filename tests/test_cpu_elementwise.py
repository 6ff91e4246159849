"""The fast elementwise operators, softmax and joining: against naive, in several blocks, and how they are compiled."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from case_builders import case, normal
from cases import compare, of

import kernels
from kernels.cpu import add, blocks, native, normalising, relu, sigmoid, softmax, tasks, vector_math
from kernels.jit import jit

cpu = kernels.get("cpu")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

#: More than one block, the last one not full.
LARGE = (3, 2 * blocks.BLOCK // 5 + 7)
SEVERAL_BLOCKS = [
    case("relu", "blocks", normal(x=LARGE)),
    case("sigmoid", "blocks", normal(x=LARGE)),
    case("add", "blocks", normal(a=LARGE, b=LARGE)),
    case("softmax", "blocks", normal(x=(2, 3, 2 * softmax.POSITIONS + 5))),
    case("softmax", "one_position_more", normal(x=(1, 3, softmax.POSITIONS + 1))),
    case("softmax", "many_rows", normal(x=(2000, 3)), axis=-1),
    case("softmax", "long_rows", normal(x=(37, 91)), axis=-1),
    case("softmax", "one_long_row", normal(x=(1, 2000)), axis=-1),
    case("concat", "blocks", lambda rng, dtype: {"arrays": [np.asarray(rng.standard_normal(LARGE), dtype)] * 2}),
]


@BOTH
@pytest.mark.parametrize("each", [*of("relu", "sigmoid", "softmax", "add", "concat"), *SEVERAL_BLOCKS], ids=str)
def test_equals_naive(each, dtype):
    compare("cpu", each, dtype)


# ---- exp and logarithms ----------------------------------------------------------------------------------------------


@jit
def _exp(y, x):
    for i in range(x.size):
        y[i] = vector_math.exp(x[i])


@jit
def _log(y, x):
    for i in range(x.size):
        y[i] = vector_math.log(x[i])


@jit
def _log1p(y, x):
    for i in range(x.size):
        y[i] = vector_math.log1p(x[i])


@jit
def _log1p_of_share(y, x):
    for i in range(x.size):
        y[i] = vector_math.log1p_of_share(x[i])


def _numbers(name, dtype, rng):
    """Return numbers of every size that a function takes, and its special ones."""
    info, n = np.finfo(dtype), 20_000
    special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        -2.0,
        np.inf,
        -np.inf,
        np.nan,
        info.max,
        -info.max,
        info.tiny,
        info.smallest_subnormal,
    ]
    top = np.log(float(info.max))
    low, high = np.log(float(info.smallest_subnormal)), top - 1e-3
    ranges = {
        "exp": (rng.uniform(-1, 1, n), rng.uniform(-1.05 * top, 1.01 * top, n)),
        "log": (rng.uniform(0, 2, n), rng.uniform(0.99, 1.01, n), np.exp(rng.uniform(low, high, n))),
        "log1p": (rng.uniform(-1, 1, n), -np.exp(rng.uniform(low, 0, n)), np.exp(rng.uniform(low, high, n))),
    }
    if name == "log1p_of_share":
        return np.concatenate([rng.uniform(0, 1, n), np.exp(rng.uniform(low, 0, n)), [0.0, 1.0, np.nan]]).astype(dtype)
    return np.concatenate([*ranges[name], special]).astype(dtype)


@BOTH
@pytest.mark.parametrize("compiled", [_exp, _log, _log1p, _log1p_of_share], ids=lambda kernel: kernel.__name__[1:])
def test_within_two_units_in_the_last_place(compiled, dtype, rng):
    name = compiled.__name__[1:]
    x = _numbers(name, dtype, rng)
    y = np.empty_like(x)
    compiled(y, x)
    # the exact value, in a wider type
    wide = np.float64 if dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        exact = getattr(vector_math, name)(x.astype(wide))
        expected = exact.astype(dtype)
        finite = np.isfinite(expected)
        unit = np.spacing(np.abs(expected[finite])).astype(wide)
        difference = np.abs(y[finite].astype(wide) - exact[finite]) / unit
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    # where no type is wider than float64, "exact" is NumPy's float64, itself off by up to a unit
    allowed = 2 if np.finfo(wide).eps < np.finfo(dtype).eps else 3
    assert difference.max() <= allowed, f"{name}({x[finite][difference.argmax()]!r})"


@pytest.mark.parametrize("name", ["exp", "log", "log1p"])
def test_plain_python_gives_the_same_function(name):
    assert getattr(vector_math, name)(0.5) == getattr(np, name)(0.5)


def test_sigmoid_of_large_numbers_is_exact_and_silent():
    x = np.array([-1e30, -200, 0, 200, 1e30], np.float32)
    np.testing.assert_array_equal(cpu.sigmoid_forward(x), np.array([0, 0, 0.5, 1, 1], np.float32))


# ---- by hand -----------------------------------------------------------------------------------------------------


def test_relu_passes_nan_both_ways():
    x = np.array([-1, 0, 2, np.nan])
    np.testing.assert_array_equal(cpu.relu_forward(x), [0, 0, 2, np.nan])
    np.testing.assert_array_equal(cpu.relu_backward(np.array([5.0, 6, 7, 8]), x), [0, 0, 7, 8])


def test_gradients_of_a_sum_are_new_arrays():
    dy = np.ones((2, 3))
    da, db = cpu.add_backward(dy, (2, 3), (2, 3))
    da += 1
    assert (dy == 1).all() and (db == 1).all()


# ---- compiling -------------------------------------------------------------------------------------------------------


def test_read_only_and_strided_inputs_compile_nothing_more(rng):
    x = rng.standard_normal((2, 4, 6, 8))
    gamma = rng.standard_normal(4)
    frozen, frozen_gamma = x.copy(), gamma.copy()
    for a in (frozen, frozen_gamma):
        a.flags.writeable = False
    strided = np.repeat(x, 2, axis=3)[..., ::2]

    def results(x, gamma):
        yield cpu.add_forward(x, x)
        yield cpu.relu_forward(x)
        yield cpu.relu_backward(x, x)
        yield cpu.softmax_forward(x)
        yield from cpu.batch_norm_forward(x, gamma, gamma, None, None, True)
        yield from cpu.batch_norm_backward(x, x, gamma, gamma, gamma, True)
        y, indices = cpu.max_pool2d_forward(x, 2)
        yield from (y, cpu.max_pool2d_backward(y, indices, x.shape))

    expected = list(results(x, gamma))
    loop, compiled = tasks._run_kernel, (len(tasks._run_kernel.signatures), len(native._compiled))
    for pictures, scale in ((frozen, frozen_gamma), (strided, gamma)):
        for actual, value in zip(results(pictures, scale), expected, strict=True):
            np.testing.assert_array_equal(actual, value)
    assert (len(loop.signatures), len(native._compiled)) == compiled


F32, ONES = (lambda n: np.ones(n, np.float32)), (np.float32(1),) * 3
ARRAYS = tasks.Arrays(*(F32(99),) * 6, np.ones(4), *(np.zeros(0, np.int64),) * 2, np.ones((1, 8)))
BLOCK, CHANNEL = (ARRAYS, (99,) * tasks._SIZES, 0), (ARRAYS, (1, 1, 99) + (1,) * (tasks._SIZES - 3), 0)
VECTORISED = [
    (relu._relu_forward_block, BLOCK),
    (relu._relu_backward_block, BLOCK),
    (add._add_block, BLOCK),
    (sigmoid._sigmoid_forward_block, BLOCK),
    (sigmoid._sigmoid_backward_block, BLOCK),
    (normalising._forward_channel, CHANNEL),
    (normalising._backward_channel, CHANNEL),
    (normalising._normalise, (F32(99), F32(99), F32(99), ONES, np.float32(0))),
    (normalising._mask, (F32(99), F32(99), F32(99))),
    (normalising._mask_again, (F32(99), F32(99), F32(99), ONES)),
    (normalising._input_gradient, (F32(99), F32(99), F32(99), ONES, ONES, 1, 1)),
]


@pytest.mark.parametrize(("block", "arguments"), VECTORISED, ids=[block.__name__ for block, _ in VECTORISED])
def test_loops_become_vector_instructions(monkeypatch, block, arguments):
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", None)  # a check for each element leaves no vectors
    # compiled here, because what comes from the disk cache has no text to look at
    fresh = numba.njit(block.py_func, error_model="numpy", fastmath=block.targetoptions["fastmath"])
    fresh(*arguments)
    (code,) = fresh.inspect_llvm().values()
    assert " x float>" in code


# ---- threads ---------------------------------------------------------------------------------------------------------

DIGEST = """
import hashlib
import numpy as np
import kernels

cpu = kernels.get("cpu")
rng = np.random.default_rng(3)
x = rng.standard_normal((3, 4, 150, 131)).astype(np.float32)
target, classes = (x > 0.3).astype(np.float32), rng.integers(0, 4, (3, 150, 131))
p, gamma = cpu.sigmoid_forward(x), np.ones(4, np.float32)
y, mean, inv_std = cpu.batch_norm_forward(x, gamma, gamma, None, None, True)
pooled, indices = cpu.max_pool2d_forward(x, 3, 2, 1)
results = [p, y, mean, inv_std, *cpu.batch_norm_backward(p, x, gamma, mean, inv_std, True)]
results += [cpu.max_pool2d_backward(pooled, indices, x.shape), cpu.softmax_forward(x), cpu.softmax_backward(x, p)]
small = x[:, :, :75, :65]
for mode in ("nearest", "bilinear"):
    results += [cpu.upsample2d_backward(x, small.shape, size=(150, 131), mode=mode)]
results += [cpu.binary_cross_entropy_forward(p, target), cpu.cross_entropy_forward(x, classes)]
results += [cpu.binary_cross_entropy_with_logits_forward(x, target), cpu.smooth_l1_forward(x, target)]
results += [cpu.sigmoid_focal_forward(x, target, reduction="sum"), cpu.dice_forward(x, target, per_sample=True)]
results += [cpu.dice_backward(1.0, x, target), cpu.cross_entropy_backward(1.0, x, classes)]
print(hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest())
"""


def test_same_bits_for_any_number_of_threads():
    root = Path(kernels.__file__).parent.parent

    def digest(threads):
        environment = os.environ | {"NUMBA_NUM_THREADS": str(threads)}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=root, env=environment, capture_output=True, text=True, timeout=600
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert digest(1) == digest(2) == digest(5)
