"""Odd but sound input gives what ordinary input gives, on every backend: layouts, byte orders, types of numbers."""

import numpy as np
import pytest
from cases import of

import kernels

F32 = np.float32
BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)


def zeros(*shape):
    return np.zeros(shape, F32)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def strided(a):
    """Return the values of ``a`` in an array whose neighbours along each axis do not touch in memory."""
    wide = np.zeros([2 * size for size in a.shape], a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def fortran(a):
    return np.asarray(a, order="F")


def foreign(a):
    return a.astype(a.dtype.newbyteorder("S"))


#: One ordinary case of each function.
ORDINARY = list({case.forward: case for case in reversed(of()) if case.inputs(F32)}.values())


@BACKENDS
@pytest.mark.parametrize("change", [read_only, strided, fortran, foreign])
@pytest.mark.parametrize("case", ORDINARY, ids=str)
def test_layout_and_byte_order_do_not_matter(backend, case, change):
    def changed(value, name=""):
        if isinstance(value, list):
            return [changed(item) for item in value]
        # running statistics are written to, and so must be plain
        if isinstance(value, np.ndarray) and value.ndim and not name.startswith("running"):
            return change(value)
        return value

    forward = getattr(kernels.get(backend), case.forward)
    parameters = {name: value for name, value in case.parameters.items() if name != "needs"}
    expected = forward(**case.inputs(F32), **parameters)
    actual = forward(**{name: changed(value, name) for name, value in case.inputs(F32).items()}, **parameters)
    for a, b in zip(actual, expected, strict=True) if isinstance(expected, tuple) else ((actual, expected),):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert a.flags.c_contiguous
        assert a.flags.writeable


@BACKENDS
@pytest.mark.parametrize("change", [read_only, strided, fortran, foreign])
def test_gradients_accept_any_layout(backend, change):
    module, rng = kernels.get(backend), np.random.default_rng(3)
    x, weight, dy = (rng.standard_normal(shape).astype(F32) for shape in ((2, 3, 6, 7), (4, 3, 3, 3), (2, 4, 4, 5)))
    expected = module.conv2d_backward(dy, x, weight)
    actual = module.conv2d_backward(change(dy), change(x), change(weight))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    y, indices = module.max_pool2d_forward(x, 2)
    expected = module.max_pool2d_backward(y, indices, x.shape)
    np.testing.assert_array_equal(module.max_pool2d_backward(change(y), change(indices), x.shape), expected)
    np.testing.assert_array_equal(module.max_pool2d_backward(y, indices.astype(np.uint16), list(x.shape)), expected)


@BACKENDS
def test_whole_numbers_of_any_type_are_parameters(backend):
    module, x, weight = kernels.get(backend), zeros(1, 2, 5, 6), zeros(3, 2, 3, 3)
    y = module.conv2d_forward(x, weight, stride=np.int64(2), padding=[np.int32(1), 1], dilation=np.array(1))
    assert y.shape == (1, 3, 3, 3)


@BACKENDS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_statistics_change_only_in_training(backend, dtype):
    module, x = kernels.get(backend), np.arange(24, dtype=dtype).reshape(2, 3, 2, 2)
    mean, var = np.zeros(3, dtype), np.ones(3, dtype)
    module.batch_norm_forward(x, None, None, mean, var, False)
    assert (mean == 0).all()
    assert (var == 1).all()
    module.batch_norm_forward(x, None, None, mean, var, True)
    assert (mean != 0).all()
    assert (var != 1).all()


@BACKENDS
def test_failed_call_leaves_running_statistics_alone(backend):
    mean, var = zeros(3), zeros(3)
    with pytest.raises(ValueError, match="eps"):
        kernels.get(backend).batch_norm_forward(zeros(2, 3, 4, 4) + 1, None, None, mean, var, True, eps=-1)
    assert not mean.any()
    assert not var.any()
