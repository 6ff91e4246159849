"""The RoI microscope on a thousand random RoIs: the naive kernel bit for bit, the fast ones within 4 units."""

import numpy as np
import pytest
from cases import module_of
from random_rois import KINDS, MODES, groups

import kernels
from tinyseg import explain

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
IN_ALL_MODES = pytest.mark.parametrize(("op", "how"), MODES, ids=[f"{op}{list(how.values())}" for op, how in MODES])
naive = kernels.get("naive")


def forward(module, op, group, rows, how, x=None):
    """Return the output of a kernel for some RoIs of a group, and the places of RoIPool's maxima or None."""
    x = group.x if x is None else x
    result = getattr(module, f"{op}_forward")(x, group.rois[rows], **group.how, **how)
    return result if isinstance(result, tuple) else (result, None)


def traced(op, group, row, how):
    """Return the trace of a RoI of a group."""
    return explain.roi(group.x, group.rois[row], op, **group.how, **how)


def same_bits(one, two):
    """Whether two arrays are equal with the sign of zero; any NaN equals any other."""
    return (
        one.dtype == two.dtype
        and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
        and np.array_equal(np.signbit(one)[one == 0], np.signbit(two)[two == 0])
    )


def valid(op, group, how):
    """Return the rows of RoIs that are no error, by what the specification says of them."""
    refused = {"not finite"} | ({"reversed"} if how.get("aligned") and how["sampling_ratio"] <= 0 else set())
    corners = group.rois[:, 1:]
    swapped = (corners[:, 2:] < corners[:, :2]).any(1)  # some reversed ones have but one cell on an axis
    return [k for k, kind in enumerate(group.kinds) if kind not in refused or (kind == "reversed" and not swapped[k])]


@BOTH
@IN_ALL_MODES
def test_the_trace_is_the_naive_kernel_bit_for_bit(op, how, dtype):
    count = errors = 0
    for group in groups(dtype):
        good = valid(op, group, how)
        group.x[0, 1, -1, -1], group.x[1, 0, 0] = np.nan, np.inf
        y, argmax = forward(naive, op, group, good, how)
        for k, row in enumerate(good):
            trace = traced(op, group, row, how)
            assert same_bits(trace.output, y[k]), (row, group)
            assert argmax is None or same_bits(trace.argmax, argmax[k]), (row, group)
            count += 1
        for row in set(range(len(group.rois))) - set(good):
            with pytest.raises(ValueError, match="^row 0 of rois has") as wanted:
                forward(naive, op, group, [row], how)
            with pytest.raises(ValueError, match="^row 0 of rois has") as got:
                traced(op, group, row, how)
            assert str(got.value) == str(wanted.value)
            errors += 1
    assert count + errors == 1000 and errors in (100, 200)


@BOTH
def test_contributions_in_order_are_the_output(dtype):
    """Added one after the other in plain Python, for RoIs of every kind and all modes of RoIAlign, and crops."""
    modes = [*MODES[1:], ("crop_and_resize", {})]
    for n, group in enumerate(groups(dtype, rois=200)):
        op, how = modes[n % len(modes)]
        for row in valid(op, group, how):
            trace = traced(op, group, row, how)
            for py, px in np.ndindex(trace.output_size):
                values, contributions = trace.contributions(py, px)
                for channel in range(2):
                    total = 0.0
                    for contribution in contributions[channel].tolist():
                        total += contribution
                    assert trace.output[channel, py, px] == dtype(total)
                if trace.rows.grid * trace.columns.grid <= 9:
                    samples = trace.samples(py, px, 1)
                    assert [sample.contribution for sample in samples] == contributions[1].tolist()
                    assert [sample.value for sample in samples] == values[1].tolist()
                    whole = sum(sample.times for sample in samples)
                    assert whole == trace.rows.grid * trace.columns.grid
                    for sample in samples:
                        weights = [cell.weight for cell in sample.cells]
                        assert sum(weights) == pytest.approx(1 if sample.on_map else 0, rel=1e-6)
                        parts = sum(cell.weight * cell.value for cell in sample.cells)
                        assert parts == pytest.approx(sample.value, rel=1e-5, abs=1e-6)


@BOTH
def test_weights_are_the_derivative_of_the_output(dtype):
    """Against the gradient of the naive kernels, which spreads a one over the cells."""
    for n, group in enumerate(groups(dtype, rois=100)):
        op, how = MODES[n % len(MODES)]
        for row in valid(op, group, how):
            trace, rois = traced(op, group, row, how), group.rois[row : row + 1]
            py, px = (n % size for n, size in zip((row, row // 2), trace.output_size, strict=True))
            dy = np.zeros((1, *trace.output.shape), dtype)
            dy[0, 1, py, px] = 1
            if op == "roi_pool":
                dx = naive.roi_pool_backward(dy, rois, trace.argmax[None], group.x.shape)
            else:
                dx = naive.roi_align_backward(dy, rois, group.x.shape, group.how["spatial_scale"], **how)
            np.testing.assert_allclose(trace.weights(py, px, 1), dx[trace.picture, 1], rtol=1e-5, atol=1e-30)


def units_apart(one, two, scale):
    """Return how far two arrays are apart, at most, in units in the last place of a scale."""
    scale = np.maximum(scale, np.finfo(scale.dtype).tiny)
    return (np.abs(one.astype(np.longdouble) - two) / np.spacing(scale)).max(initial=0)


def compare(backend, op, how, some_groups):
    """Check a kernel against traces: equal for RoIPool; else 4 units in the last place of the mean of magnitudes.

    The mean itself may be any part of that, as values of both signs cancel.
    """
    module, kinds = module_of(backend), set()
    for group in some_groups:
        good = valid(op, group, how)
        y, argmax = forward(module, op, group, good, how)
        traces = [traced(op, group, row, how) for row in good]
        expected = np.array([trace.output for trace in traces])
        kinds |= {group.kinds[row] for row in good}
        if op == "roi_pool":
            assert same_bits(y, expected) and same_bits(argmax, np.array([trace.argmax for trace in traces]))
        else:
            scale, _ = forward(naive, op, group, good, how, np.abs(group.x))
            assert units_apart(y, expected, scale) <= 4
    assert kinds >= set(KINDS) - {"not finite", "reversed"}


@BOTH
@IN_ALL_MODES
def test_the_cpu_kernels_are_within_4_units(op, how, dtype):
    compare("cpu", op, how, groups(dtype, seed=3))


@pytest.mark.cuda
@BOTH
@IN_ALL_MODES
def test_the_cuda_kernels_are_within_4_units(op, how, dtype):
    """The thousand RoIs in turns, as the simulator is slow: each mode has its own."""
    compare("cuda", op, how, groups(dtype, seed=3)[MODES.index((op, how)) :: len(MODES)])
