"""What holds for any sizes, parameters and values, on every backend: drawn by hypothesis, the same draws each time."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import kernels

BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)
DRAWS = settings(derandomize=True, deadline=None, max_examples=40, database=None)
SEEDS = st.integers(0, 2**32 - 1)
#: Rounding in float64, over sums of some hundred products of numbers of size one.
NEAR = {"rtol": 1e-11, "atol": 1e-11}


def normal(seed, *shape):
    """Return seeded normal numbers; different ones for each shape's place in a test come from different seeds."""
    return np.random.default_rng(seed).standard_normal(shape)


def inner(a, b):
    """Return the inner product <a, b>."""
    return float(np.vdot(a, b))


@st.composite
def convolutions(draw, transposed=False):
    """Draw shapes of x and weight, and parameters, of a valid convolution or transposed convolution."""
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    groups = draw(st.integers(1, 3))
    c, o = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, padding, dilation = pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
    height, width = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 5, 8, 9, 15, 16, 17, 20]))
    parameters = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    x = (draw(st.integers(1, 2)), c, height, width)
    if not transposed:
        assume(all(size + 2 * p >= r for size, p, r in zip((height, width), padding, reach, strict=True)))
        return x, (o, c // groups, *kernel), parameters
    parameters["output_padding"] = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    sizes = zip((height, width), stride, padding, reach, parameters["output_padding"], strict=True)
    assume(all((size - 1) * s - 2 * p + r + op >= 1 for size, s, p, r, op in sizes))
    return x, (c, o // groups, *kernel), parameters


@st.composite
def poolings(draw):
    """Draw a shape of x, and parameters, of a valid pooling."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.integers(1, 2))
    parameters = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.integers(1, 3)),
        "padding": tuple(draw(st.integers(0, (dilation * (k - 1) + 1) // 2)) for k in kernel),
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
    }
    return (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(5, 9)),
        draw(st.integers(5, 18)),
    ), parameters


@st.composite
def resizings(draw):
    """Draw a shape of x, and parameters, of a valid resizing."""
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    parameters = {"mode": mode, "align_corners": mode == "bilinear" and draw(st.booleans())}
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 17)))
    if draw(st.booleans()):
        parameters["size"] = draw(st.tuples(st.integers(1, 12), st.integers(1, 20)))
    else:
        parameters["scale_factor"] = draw(st.floats(1, 3) | st.sampled_from([1, 2, 3]))
    return shape, parameters


# ---- convolutions ---------------------------------------------------------------------------------------------------


def both(module, transposed):
    """Return forward and backward of one of the convolutions."""
    name = "conv_transpose2d" if transposed else "conv2d"
    return getattr(module, f"{name}_forward"), getattr(module, f"{name}_backward")


@BACKENDS
@pytest.mark.parametrize("transposed", [False, True])
@given(data=st.data(), seed=SEEDS, factor=st.floats(-3, 3))
@DRAWS
def test_convolution_is_linear_in_x_and_in_weight(backend, transposed, data, seed, factor):
    x_shape, weight_shape, parameters = data.draw(convolutions(transposed))
    forward, _ = both(kernels.get(backend), transposed)
    x, other_x = normal(seed, 2, *x_shape)
    weight, other_weight = normal(seed + 1, 2, *weight_shape)

    def y(x, weight):
        return forward(x, weight, **parameters)

    np.testing.assert_allclose(y(x + factor * other_x, weight), y(x, weight) + factor * y(other_x, weight), **NEAR)
    sum_of_weights = y(x, weight + factor * other_weight)
    np.testing.assert_allclose(sum_of_weights, y(x, weight) + factor * y(x, other_weight), **NEAR)


@BACKENDS
@pytest.mark.parametrize("transposed", [False, True])
@given(data=st.data(), seed=SEEDS)
@DRAWS
def test_convolution_gradients_are_adjoint(backend, transposed, data, seed):
    x_shape, weight_shape, parameters = data.draw(convolutions(transposed))
    forward, backward = both(kernels.get(backend), transposed)
    x, weight = normal(seed, *x_shape), normal(seed + 1, *weight_shape)
    y = forward(x, weight, **parameters)
    dy = normal(seed + 2, *y.shape)
    dx, dweight, dbias = backward(dy, x, weight, **parameters)
    np.testing.assert_allclose(inner(dx, x), inner(dy, y), rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(inner(dweight, weight), inner(dy, y), rtol=1e-11, atol=1e-9)
    bias = normal(seed + 3, y.shape[1])
    added = forward(x, weight, bias, **parameters) - y
    np.testing.assert_allclose(inner(dbias, bias), inner(dy, added), rtol=1e-11, atol=1e-9)


@BACKENDS
@given(data=st.data(), seed=SEEDS)
@DRAWS
def test_transposed_convolution_is_the_transpose_of_convolution(backend, data, seed):
    x_shape, weight_shape, parameters = data.draw(convolutions())
    module = kernels.get(backend)
    x, weight = normal(seed, *x_shape), normal(seed + 1, *weight_shape)
    y = module.conv2d_forward(x, weight, **parameters)
    v = normal(seed + 2, *y.shape)
    # rows and columns at the end of x that no window reaches come back as output padding
    stride, padding, dilation = parameters["stride"], parameters["padding"], parameters["dilation"]
    ends = zip(y.shape[2:], stride, padding, dilation, weight_shape[2:], strict=True)
    reached = [(count - 1) * step - 2 * p + d * (k - 1) + 1 for count, step, p, d, k in ends]
    output_padding = tuple(size - end for size, end in zip(x_shape[2:], reached, strict=True))
    back = module.conv_transpose2d_forward(v, weight, output_padding=output_padding, **parameters)
    np.testing.assert_allclose(inner(back, x), inner(v, y), rtol=1e-11, atol=1e-9)


@BACKENDS
@given(data=st.data(), seed=SEEDS, down=st.integers(0, 2), across=st.integers(0, 2))
@DRAWS
def test_convolution_and_pooling_commute_with_shifts(backend, data, seed, down, across):
    x_shape, weight_shape, parameters = data.draw(convolutions())
    parameters = parameters | {"padding": 0}
    module, stride = kernels.get(backend), parameters["stride"]
    large = normal(seed, *x_shape[:2], x_shape[2] + 14, x_shape[3] + 14)
    shifted = large[:, :, down * stride[0] :, across * stride[1] :]
    weight = normal(seed + 1, *weight_shape)
    y = module.conv2d_forward(large, weight, **parameters)
    expected = y[:, :, down:, across:]
    np.testing.assert_allclose(module.conv2d_forward(shifted, weight, **parameters), expected, **NEAR)
    pool = {"kernel_size": weight_shape[2:], "stride": stride, "dilation": parameters["dilation"]}
    pooled = module.max_pool2d_forward(large, **pool)[0][:, :, down:, across:]
    np.testing.assert_array_equal(module.max_pool2d_forward(shifted, **pool)[0], pooled)


# ---- pooling, resizing ----------------------------------------------------------------------------------------------


@BACKENDS
@given(pooling=poolings(), value=st.floats(-1e6, 1e6))
@DRAWS
def test_max_pool_of_a_constant_is_the_constant(backend, pooling, value):
    shape, parameters = pooling
    y, indices = kernels.get(backend).max_pool2d_forward(np.full(shape, value), **parameters)
    assert (y == value).all()
    assert ((indices >= 0) & (indices < shape[2] * shape[3])).all()


@BACKENDS
@given(pooling=poolings(), seed=SEEDS)
@DRAWS
def test_max_pool_picks_values_and_its_gradient_is_adjoint(backend, pooling, seed):
    shape, parameters = pooling
    module, x = kernels.get(backend), normal(seed, *shape)
    y, indices = module.max_pool2d_forward(x, **parameters)

    def pick(a):
        """Return the values at the indices: max-pooling with its choices held fixed, which is linear."""
        return np.take_along_axis(a.reshape(*shape[:2], -1), indices.reshape(*shape[:2], -1), 2).reshape(y.shape)

    np.testing.assert_array_equal(pick(x), y)
    v, dy = normal(seed + 1, *shape), normal(seed + 2, *y.shape)
    dx = module.max_pool2d_backward(dy, indices, shape)
    np.testing.assert_allclose(inner(dx, v), inner(dy, pick(v)), rtol=1e-11, atol=1e-11)


@BACKENDS
@given(resizing=resizings(), value=st.floats(-1e6, 1e6))
@DRAWS
def test_resized_constant_is_the_constant(backend, resizing, value):
    shape, parameters = resizing
    y = kernels.get(backend).upsample2d_forward(np.full(shape, value), **parameters)
    np.testing.assert_allclose(y, value, rtol=1e-15)


@BACKENDS
@given(resizing=resizings(), seed=SEEDS)
@DRAWS
def test_resizing_gradient_is_adjoint(backend, resizing, seed):
    shape, parameters = resizing
    module, x = kernels.get(backend), normal(seed, *shape)
    y = module.upsample2d_forward(x, **parameters)
    dy = normal(seed + 1, *y.shape)
    dx = module.upsample2d_backward(dy, shape, **parameters)
    np.testing.assert_allclose(inner(dx, x), inner(dy, y), rtol=1e-11, atol=1e-11)
    assert x.min() - 1e-12 <= y.min() <= y.max() <= x.max() + 1e-12


# ---- the rest -------------------------------------------------------------------------------------------------------


@BACKENDS
@given(n=st.integers(1, 5), features=st.integers(1, 40), outputs=st.integers(1, 20), seed=SEEDS)
@DRAWS
def test_linear_is_linear_and_its_gradients_are_adjoint(backend, n, features, outputs, seed):
    module = kernels.get(backend)
    x, other = normal(seed, 2, n, features)
    weight = normal(seed + 1, outputs, features)
    y = module.linear_forward(x, weight)
    np.testing.assert_allclose(module.linear_forward(x - 2 * other, weight), y - 2 * (other @ weight.T), **NEAR)
    dy = normal(seed + 2, *y.shape)
    dx, dweight, dbias = module.linear_backward(dy, x, weight)
    np.testing.assert_allclose([inner(dx, x), inner(dweight, weight)], inner(dy, y), rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(dbias, dy.sum(0), **NEAR)


@BACKENDS
@given(
    shape=st.lists(st.integers(1, 5), max_size=4),
    repeated=st.lists(st.booleans(), min_size=4, max_size=4),
    dropped=st.integers(0, 2),
    seed=SEEDS,
)
@DRAWS
def test_add_commutes_and_its_gradient_is_adjoint(backend, shape, repeated, dropped, seed):
    module = kernels.get(backend)
    b_shape = [1 if again else size for size, again in zip(shape, repeated, strict=False)][min(dropped, len(shape)) :]
    a, b = normal(seed, *shape), normal(seed + 1, *b_shape)
    a, b = np.asarray(a), np.asarray(b)
    y = module.add_forward(a, b)
    np.testing.assert_array_equal(module.add_forward(b, a), y)
    dy = np.asarray(normal(seed + 2, *y.shape))
    da, db = module.add_backward(dy, a.shape, b.shape)
    np.testing.assert_allclose(inner(da, a) + inner(db, b), inner(dy, y), rtol=1e-11, atol=1e-11)


@BACKENDS
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), axis=st.integers(-3, 2), seed=SEEDS)
@DRAWS
def test_concat_gradient_undoes_it(backend, sizes, axis, seed):
    module, arrays = kernels.get(backend), []
    for i, size in enumerate(sizes):
        shape = [2, 3, 4]
        shape[axis] = size
        arrays.append(normal(seed + i, *shape))
    y = module.concat_forward(arrays, axis)
    parts = module.concat_backward(y, sizes, axis)
    for part, array in zip(parts, arrays, strict=True):
        np.testing.assert_array_equal(part, array)
    dy = normal(seed + 9, *y.shape)
    pulled = sum(inner(d, a) for d, a in zip(module.concat_backward(dy, sizes, axis), arrays, strict=True))
    np.testing.assert_allclose(pulled, inner(dy, y), rtol=1e-11, atol=1e-11)


@BACKENDS
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    size=st.sampled_from([1, 10, 1000]),
    shift=st.floats(-1e3, 1e3),
    seed=SEEDS,
)
@DRAWS
def test_softmax_sums_to_one_and_ignores_a_shift(backend, shape, axis, size, shift, seed):
    assume(-len(shape) <= axis < len(shape))
    module, x = kernels.get(backend), size * normal(seed, *shape)
    y = module.softmax_forward(x, axis)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis), 1, rtol=1e-14)
    np.testing.assert_allclose(module.softmax_forward(x + shift, axis), y, rtol=1e-9, atol=1e-12)
    # a shift changes nothing, so the gradient has no part along it
    dx = module.softmax_backward(normal(seed + 1, *shape), y, axis)
    np.testing.assert_allclose(dx.sum(axis), 0, atol=1e-14)


@BACKENDS
@given(x=st.lists(st.floats(-800, 800), min_size=1, max_size=40))
@DRAWS
def test_sigmoid_and_relu_are_monotonous_and_symmetric(backend, x):
    module, x = kernels.get(backend), np.sort(np.array(x))
    y = module.sigmoid_forward(x)
    assert ((y >= 0) & (y <= 1)).all()
    assert (np.diff(y) >= -2e-16).all()
    np.testing.assert_allclose(y + module.sigmoid_forward(-x), 1, rtol=1e-15)
    np.testing.assert_array_equal(module.relu_forward(x) - module.relu_forward(-x), x)


@BACKENDS
@given(data=st.data(), n=st.integers(1, 3), c=st.integers(1, 4), h=st.integers(1, 5), w=st.integers(2, 18), seed=SEEDS)
@DRAWS
def test_batch_norm_normalises_and_forgets_scale_and_shift(backend, data, n, c, h, w, seed):
    module, x = kernels.get(backend), normal(seed, n, c, h, w)
    assume(x.var((0, 2, 3)).min() > 1e-2)  # two values can lie close together, and their difference then rounds
    y, _, _ = module.batch_norm_forward(x, None, None, None, None, True, eps=0.0)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1, rtol=1e-11)
    factor, shift = data.draw(st.floats(0.1, 10)), data.draw(st.floats(-10, 10))
    again, _, _ = module.batch_norm_forward(factor * x + shift, None, None, None, None, True, eps=0.0)
    np.testing.assert_allclose(again, y, rtol=1e-9, atol=1e-9)
