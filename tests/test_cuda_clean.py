"""Our own kernels under `cuda_trace`: no mistakes, and nothing slow but what is excused here, access by access.

An excuse names the kernel, the array and the line, and a case that shows it. What is not excused fails, and so does an
excuse whose case no longer needs it.
"""

from typing import NamedTuple

import case_rows_boxes
import case_rows_rois
import numpy as np
import pytest
from case_builders import case, normal
from cases import compare, of
from cuda_traced import traced
from test_cuda_kernels import OPERATORS

from kernels import cuda, naive
from kernels.cuda.device import SIMULATED


class Excuse(NamedTuple):
    """A line of a kernel whose warps touch more sectors than they need, why it stays so, and a case where they do."""

    case: str
    why: str
    kernel: str
    array: str
    source: str  # part of the line

    def covers(self, kernel, problem):
        same = (self.kernel, self.array) == (kernel.name, problem.array) and self.source in problem.source
        return same and problem.kind == "uncoalesced"


def _excuses(case, why, **accesses):
    """Yield excuses of one reason: ``accesses`` has (array, part of the line) by kernel, as ``file__kernel``."""
    for kernel, lines in accesses.items():
        for array, source in lines:
            yield Excuse(case, why, kernel.replace("__", "."), array, source)


_ROW = "a thread goes along a row; what a sector holds beside its number it reads next, from the cache"
_OWN = (
    "a thread writes its neighbouring columns one after the other, once for a whole sum of products, and the second-"
    "level cache puts sectors together; to turn tiles in shared memory would take registers from the sums"
)
_WINDOWS = "windows side by side begin a stride apart; the others of their pixels come from the same sectors"
_BINS = "where boxes lie decides what is read; bins side by side lie a bin apart"
_FIVE = "a RoI is five numbers, of which the picture's is one"

EXCUSES = [
    *_excuses(
        "cross_entropy-rows", "a classifier's scores, a few hundred rows: " + _ROW,
        cross_entropy__cross_entropy_sum_kernel=[
            ("x", "largest = x[start]"), ("x", "if x[k] > largest:"), ("x", "largest = x[k]"), ("x", "score = x[k]"),
        ],
        cross_entropy__cross_entropy_gradient_kernel=[
            ("x", "largest = x[start]"), ("x", "if x[k] > largest:"), ("x", "largest = x[k]"), ("x", "score = x[k]"),
            ("x", "dx[at] = upstream"), ("dx", "dx[at] = upstream"),
        ],
    ),
    *_excuses("add-repeated_last", _ROW, add__sum_kernel=[("a", "total += a[start + k * after]")]),
    *_excuses(
        "add-repeated_first", "few sums: each has a block of threads, down its column",
        add__partial_sums_kernel=[("a", "total += a[start + k * after]")],
    ),
    *_excuses(
        "batch_norm-one_pixel", "maps of one pixel: a channel's pixels lie as far apart as pictures",
        moments__statistics_kernel=[("x", "near = float64(x["), ("x", "alone = float64(x[i]) - near")],
        normalising__sums=[("dy", "gradient = dy[i]"), ("x", "dot += alone * (float64(x[i]) - average)")],
    ),
    *_excuses(
        "concat-narrow", "narrow rows far apart, where the last axis is joined",
        concat__copy_rows_kernel=[("source", "to[to_start + i] = source["), ("to", "to[to_start + i] = source[")],
    ),
    *_excuses(
        "conv2d-point", _OWN,
        implicit_gemm__gather_small=[("y", "y[np.uint64(at + m * stride)] = total[")],
    ),
    *_excuses(
        "conv_transpose2d-phases", _OWN, weight_gradient__weight_gradient_small=[("dweight", "y[np.uint64(at + m * ")]
    ),
    *_excuses(
        "conv_transpose2d-phases", "its gradient reads pixels side by side, a stride apart; the next cell the rest",
        implicit_gemm__gather_small=[("x", "value = x[np.uint64(at + k * COL_SLOW * plane)]")],
    ),
    *_excuses(
        "linear-one_tile", _OWN,
        gemm__product_nn_small=[("y", "y[np.uint64(at + m * stride)] = total[")],
        gemm__product_nt_small=[("y", "y[np.uint64(at + m * stride)] = total["), ("bias", "value = bias[np.uint64(")],
        gemm__product_tn_small=[("y", "y[np.uint64(at + m * stride)] = total[")],
    ),
    *_excuses(
        "max_pool2d-halves", _WINDOWS, max_pool2d__pool2=[("x", "window[k] = x[")],
    ),
    *_excuses("max_pool2d-overlapping", _WINDOWS, max_pool2d__pool3=[("x", "window[k] = x[")]),
    *_excuses(
        "upsample2d-twice", "pixels side by side collect from outputs that lie the scale apart",
        upsample2d__nearest_gradient_kernel=[("dy", "total += dy[at]")],
    ),
    *_excuses(
        "upsample2d-bilinear", "pixels side by side collect from outputs that lie the scale apart",
        upsample2d__bilinear_gradient_kernel=[("dy", "low_x, fx, gradient = ")],
    ),
    *_excuses(
        "box_iou-many", "a box is four numbers: the first read brings the others into the cache",
        iou__box_iou_kernel=[("b", "bx1, by1, bx2, by2 = ")],
    ),
    *_excuses(
        "roi_align-many", _BINS,
        roi_align__forward_kernel=[
            ("x", "total0 += both * x["), ("x", "total1 += both * x["),
            ("x", "total2 += both * x["), ("x", "total3 += both * x["),
        ],
        roi_taps__tabulate_kernel=[("cell", "if count > 0 and cell[last] == at:")],
    ),
    *_excuses("roi_align-many", _FIVE, roi_tiles__touching_kernel=[("rois", "span[i, 0] = int32(rois[5 * k])")]),
    *_excuses(
        "roi_pool-many", _BINS,
        roi_pool__forward_kernel=[("x", "value0, value1 = x["), ("x", "value2, value3 = x[")],
    ),
]  # fmt: skip

_LARGEST = 300  # elements of a case's inputs


def _small(operator):
    """Return a few of an operator's cases that the tracer runs quickly; one of those with large tiles."""
    cases = [case for case in of(operator) if min(_sizes(case)) > 0 and sum(_sizes(case)) <= _LARGEST]
    return cases[:: max(1, len(cases) // 2)][: 1 if operator in ("linear", "conv2d", "conv_transpose2d") else 2]


def _sizes(case):
    arrays = (a for value in case.inputs(np.float32).values() for a in (value if isinstance(value, list) else [value]))
    return [np.size(a) for a in arrays if a is not None]


def _large():
    """Yield cases whose warps are full, of the kinds that memory is hard on."""
    yield case("softmax", "rows", normal(x=(64, 21)), axis=1)
    yield case("softmax", "planes", normal(x=(2, 5, 64)), axis=1)
    yield case("cross_entropy", "rows", lambda rng, dtype: _scores(rng, dtype, (64, 21)))
    yield case("cross_entropy", "planes", lambda rng, dtype: _scores(rng, dtype, (2, 5, 64)))
    yield case("add", "repeated_first", normal(a=(70, 10), b=(10,)))
    yield case("add", "repeated_last", normal(a=(70, 40), b=(70, 1)))
    for name, shape in (("one_pixel", (64, 3, 1, 1)), ("planes", (2, 3, 12, 16))):
        statistics = {"gamma": (3,), "beta": (3,), "running_mean": None, "running_var": None}
        yield case("batch_norm", name, normal(x=shape, **statistics), training=True)
    yield case("concat", "narrow", _narrow, axis=1)
    yield case("conv2d", "point", normal(x=(1, 8, 8, 8), weight=(32, 8, 1, 1), bias=(32,)))
    yield case("conv2d", "taps", normal(x=(1, 12, 4, 4), weight=(40, 12, 3, 3), bias=None))
    yield case("conv_transpose2d", "taps", normal(x=(1, 12, 3, 3), weight=(12, 40, 3, 3), bias=None))
    yield case("conv_transpose2d", "phases", normal(x=(1, 4, 8, 8), weight=(4, 16, 2, 2), bias=(16,)), stride=2)
    yield case("linear", "one_tile", normal(x=(32, 32), weight=(64, 32), bias=(64,)))
    yield case("max_pool2d", "halves", normal(x=(1, 2, 32, 32)), kernel_size=2)
    yield case("max_pool2d", "overlapping", normal(x=(1, 2, 32, 32)), kernel_size=3, stride=2, padding=1)
    yield case("upsample2d", "twice", normal(x=(1, 2, 16, 16)), scale_factor=2)
    yield case("upsample2d", "bilinear", normal(x=(1, 2, 16, 16)), scale_factor=2, mode="bilinear")
    yield case("box_iou", "many", lambda rng, dtype: {n: case_rows_boxes.random_boxes(rng, 70, dtype) for n in "ab"})
    rois = case_rows_rois._inputs((1, 1, 20, 64), count=12)
    yield case("roi_align", "many", rois, output_size=7, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    yield case("roi_pool", "many", rois, output_size=7, spatial_scale=1.0)


def _narrow(rng, dtype):
    return {"arrays": [rng.random((40, columns)).astype(dtype) for columns in (3, 2)]}


def _scores(rng, dtype, shape):
    targets = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    return {"x": np.asarray(rng.standard_normal(shape), dtype), "target": targets}


CASES = [case for operator in OPERATORS for case in _small(operator)] + list(_large())


def _assert_clean(traces, name):
    """Compare what was found with the excuses, and those of this case with what was found."""
    assert traces
    needed = {excuse for excuse in EXCUSES if excuse.case == name}
    for kernel, trace in traces:
        assert trace.mistakes == [], kernel.name
        for problem in trace.slow:
            covering = {excuse for excuse in EXCUSES if excuse.covers(kernel, problem)}
            assert covering, f"{kernel.name}, line {problem.source!r}: {problem}"
            needed -= covering
    if not SIMULATED:  # whose tiles are too small for a warp
        assert needed == set(), "excuses that are no longer needed"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_kernels_are_clean_and_equal_naive_with_tiles_of_full_size(case):
    with traced() as traces:
        compare("cuda", case, np.float32)
    _assert_clean(traces, str(case))


SIZES = [5000, 1, 0, 2048, 33]  # of parameters: several parts, and less than a warp


STEPS = {  # how many lists they change beside the parameters, and how they are called
    "sgd": (0, lambda b, v, g: b.sgd_step(v, g, None, (), 0.1, weight_decay=0.1)),
    "momentum": (1, lambda b, v, g, m: b.sgd_step(v, g, m, [False] * 5, 0.1, momentum=0.9, nesterov=True)),
    "adam": (2, lambda b, v, g, m, s: b.adam_step(v, g, m, s, None, [3] * 5, 0.1)),
    "amsgrad": (3, lambda b, v, g, m, s, t: b.adam_step(v, g, m, s, t, [3] * 5, 0.1, decoupled=True)),
    "scale": (0, lambda b, v, g: b.scale_arrays(v, 0.3)),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_optimisers_are_clean_and_equal_naive(name, rng):
    lists, step = STEPS[name]
    numbers = [[np.abs(rng.standard_normal(size)).astype(np.float32) for size in SIZES] for _ in range(2 + lists)]
    expected = [[a.copy() for a in arrays] for arrays in numbers]
    step(naive, *expected)
    with traced() as traces:
        there = [[cuda.to_device(a) for a in arrays] for arrays in numbers]
        step(cuda, *there)
        actual = [[cuda.to_host(a) for a in arrays] for arrays in there]
    _assert_clean(traces, name)
    assert all(trace.totals()["list 0, array 0"]["write"] == SIZES[0] for _, trace in traces)
    for arrays, wanted in zip(actual, expected, strict=True):
        for a, b in zip(arrays, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-6)


def test_the_sum_of_squares_is_clean(rng):
    numbers = [rng.standard_normal(size).astype(np.float32) for size in SIZES]
    with traced() as traces:
        total = cuda.sum_of_squares([cuda.to_device(a) for a in numbers])
    _assert_clean(traces, "squares")
    assert total == pytest.approx(naive.sum_of_squares(numbers), rel=1e-12)


def test_every_excuse_has_a_case():
    assert {excuse.case for excuse in EXCUSES} <= {str(case) for case in CASES}
