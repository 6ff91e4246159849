"""Losses and elementwise operators on the device: odd sizes, special values, what is checked there, what is copied."""

import numpy as np
import pytest
from case_builders import case, filled, loss_inputs, normal
from cases import compare

from kernels import cuda, naive
from kernels.cuda import add, reduction, softmax

pytestmark = pytest.mark.cuda

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
#: More numbers than one block sums, in the simulator than all do at once; the parts are not equally long.
MANY = reduction.SUM_THREADS * 8 * min(reduction.PARTS, 5) + 5
inf, nan = np.inf, np.nan


def there(*arrays):
    return [cuda.to_device(a) for a in arrays]


def host(a):
    return cuda.to_host(a)


# ---- odd sizes -------------------------------------------------------------------------------------------------------


def _classes(shape, classes, weighted):
    def make(rng, dtype):
        target = rng.integers(0, classes, shape)
        target[rng.random(shape) < 0.2] = -100
        weight = np.asarray(rng.uniform(0.2, 3, classes), dtype) if weighted else None
        x = np.asarray(rng.standard_normal((shape[0], classes, *shape[1:])), dtype)
        return {"x": x, "target": target, "weight": weight}

    return make


def _rows():
    for how in ("none", "mean", "sum"):
        scale = {"none": 1.0, "mean": 10.0, "sum": float(MANY)}[how]  # naive adds one after the other
        for function in ("binary_cross_entropy_with_logits", "smooth_l1", "sigmoid_focal"):
            yield case(function, f"parts_{how}", loss_inputs((MANY,)), scale, reduction=how)
        yield case("cross_entropy", f"parts_{how}", _classes((2, MANY // 2), 3, True), scale, reduction=how)
        yield case("cross_entropy", f"rows_{how}", _classes((9,), 70, False), label_smoothing=0.1, reduction=how)
        for per_sample in (False, True):
            make = loss_inputs((reduction.PARTS + 2, 3, 5))
            yield case("dice", f"samples_{per_sample}_{how}", make, per_sample=per_sample, reduction=how)
    for classes in (1, 2, 3, softmax._THREADS, softmax._THREADS + 1, 3 * softmax._THREADS + 2):
        yield case("softmax", f"rows_of_{classes}", normal(x=(softmax._BLOCKS % 1000 + 2, classes)))
    row = (1, slice(None))
    many = {"x": [((0, 3), nan), ((2, 1), inf), ((3, 0), -inf), (row, -inf)]}
    yield case("softmax", "rows_special", filled(normal(x=(5, softmax._THREADS + 1)), **many))
    for a, b in (
        ((2, 1, 3, 1, 2, 1, 3, 1), (1, 2, 1, 2, 1, 3, 1, 2)),  # more kinds of axes than a kernel takes
        ((1, 2, 1, 2, 1, 2, 1, 2, 1), (2, 1, 2, 1, 2, 1, 2, 1, 2)),
        ((add._LONG * 9, 3), (3,)),  # long sums: a column at a time
        ((3, add._LONG * 9), (3, 1)),
        ((2, 3, add._LONG + 1), (3, 1)),
        ((700, 2), ()),
        ((1, 1), (0, 1)),
        ((0, 3), (3,)),
    ):
        yield case("add", f"broadcast{a}{b}", normal(a=a, b=b), scale=30.0)


@BOTH
@pytest.mark.parametrize("each", list(_rows()), ids=str)
def test_equals_naive(each, dtype):
    compare("cuda", each, dtype)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_sums_are_kept_in_float64():
    # a float32 sum of these loses every small number
    x = np.full(300, 0.25, np.float32)
    x[0] = 2.0**25
    assert host(cuda.smooth_l1_forward(x, np.zeros_like(x), beta=0.0, reduction="sum")) == np.float32(2**25 + 74.75)


def test_a_sum_beyond_the_type_is_infinite():
    x = np.full(4, 3e38, np.float32)
    assert np.isinf(host(cuda.smooth_l1_forward(x, np.zeros_like(x), reduction="sum")))


@BOTH
@pytest.mark.parametrize("far", [1e4, 1e30])
def test_far_logits_do_not_overflow(dtype, far):
    x, target = there(np.array([far, -far, far, -far], dtype), np.array([1, 0, 0, 1], dtype))
    y = cuda.binary_cross_entropy_with_logits_forward(x, target, reduction="none")
    np.testing.assert_array_equal(host(y), np.array([0, 0, far, far], dtype))
    dx = cuda.binary_cross_entropy_with_logits_backward(np.ones(4, dtype), x, target, reduction="none")
    np.testing.assert_array_equal(host(dx), [0, 0, 1, -1])
    rows = np.array([[far, -far]], dtype)
    for chosen, expected in ((0, 0), (1, dtype(far) + dtype(far))):
        y = cuda.cross_entropy_forward(rows, np.array([chosen]), reduction="none")
        np.testing.assert_array_equal(host(y), np.array([expected], dtype))


@BOTH
def test_nan_and_inf_are_those_of_naive(dtype):
    x = np.array([nan, inf, -inf, 0, 1, -1], dtype)
    target, ones = np.array([0, 1, 1, nan, inf, 0], dtype), np.ones(6, dtype)
    with np.errstate(all="ignore"):
        for name in ("smooth_l1", "sigmoid_focal", "binary_cross_entropy_with_logits"):
            y = host(getattr(cuda, f"{name}_forward")(x, target, reduction="none"))
            expected = getattr(naive, f"{name}_forward")(x, target, reduction="none")
            np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected), name)
            np.testing.assert_array_equal(y[~np.isfinite(y)], expected[~np.isfinite(y)], name)
            dx = host(getattr(cuda, f"{name}_backward")(ones, x, target, reduction="none"))
            expected = getattr(naive, f"{name}_backward")(ones, x, target, reduction="none")
            np.testing.assert_array_equal(np.isnan(dx), np.isnan(expected), name)
        scores = np.array([[nan, 0, 1], [0, nan, 1], [-inf, 0, 1], [0, 1, inf], [-inf] * 3, [0, 1, 2]], dtype)
        classes = np.array([1, 0, 0, 0, 1, 2])
        y = host(cuda.cross_entropy_forward(scores, classes, reduction="none"))
        np.testing.assert_array_equal(np.isnan(y), [True, True, False, True, True, False])
        assert y[2] == inf
        expected = naive.cross_entropy_backward(ones, scores, classes, reduction="none")
        dx = host(cuda.cross_entropy_backward(ones, scores, classes, reduction="none"))
        np.testing.assert_array_equal(np.isnan(dx), np.isnan(expected))


@pytest.mark.parametrize("target", [np.array([[-100, -100]]), np.array([[0, 0]])], ids=["all ignored", "no weight"])
def test_mean_over_no_weight_is_0(target):
    x, weight = np.ones((1, 2, 2)), np.array([0.0, 1])
    assert host(cuda.cross_entropy_forward(x, target, weight)) == 0
    assert not host(cuda.cross_entropy_backward(1.0, x, target, weight)).any()


@BOTH
def test_a_sum_is_the_same_every_time(rng, dtype):
    x, target = there(np.asarray(rng.standard_normal(MANY), dtype), np.asarray(rng.random(MANY), dtype))
    totals = {host(cuda.smooth_l1_forward(x, target, reduction="sum")).tobytes() for _ in range(3)}
    assert len(totals) == 1


# ---- what is checked on the device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["cross_entropy_forward", "cross_entropy_backward"])
@pytest.mark.parametrize("wrong", [4, -1, 2**62, -(2**62)])
def test_a_class_out_of_range_is_named(rng, function, wrong):
    x, target = rng.standard_normal((2, 4, 50)), rng.integers(0, 4, (2, 50))
    target[0, 7], target[1, 30] = 255, wrong
    dy = () if function.endswith("forward") else (1.0,)
    x_there, target_there = there(x, target)
    for labels in (target, target_there):
        with pytest.raises(ValueError, match=rf"target has class {wrong} at index \(1, 30\); expected 0 to 3, or 255"):
            getattr(cuda, function)(*dy, x_there, labels, ignore_index=255)
    target[1, 30] = 0
    y = host(getattr(cuda, function)(*dy, x_there, cuda.to_device(target), ignore_index=255))  # the next call works
    assert np.isfinite(y).all()


@pytest.mark.parametrize("function", ["binary_cross_entropy_forward", "binary_cross_entropy_backward"])
def test_probabilities_out_of_range_are_named(rng, function):
    p, target = rng.random(60), rng.random(60)
    dy = () if function.endswith("forward") else (1.0,)
    for name, index, value in (("p", 59, 1.5), ("target", 3, -0.25)):
        arrays = {"p": p.copy(), "target": target.copy()}
        arrays[name][index], arrays[name][5] = value, nan
        with pytest.raises(ValueError, match=rf"{name} has values from .*{value}.*; expected 0 to 1"):
            getattr(cuda, function)(*dy, *there(arrays["p"], arrays["target"]))
        arrays[name][index] = 1
        getattr(cuda, function)(*dy, *there(arrays["p"], arrays["target"]))  # NaN is taken


def test_what_does_not_fit_is_named(rng):
    x, target, single = there(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"weight has shape \(2,\), which does not broadcast to \(2, 3\)"):
        cuda.binary_cross_entropy_with_logits_forward(x, target, cuda.to_device(np.zeros(2)))
    with pytest.raises(ValueError, match=r"weight has shape \(4, 2, 3\), which does not broadcast to \(2, 3\)"):
        cuda.binary_cross_entropy_with_logits_forward(x, target, cuda.to_device(np.zeros((4, 2, 3))))
    with pytest.raises(TypeError, match="weight is a list"):
        cuda.binary_cross_entropy_with_logits_forward(x, target, [1.0])
    with pytest.raises(TypeError, match="target has dtype float32; expected float64"):
        cuda.smooth_l1_forward(x, single)
    with pytest.raises(TypeError, match="target has dtype int32; expected int64 on the device"):
        cuda.cross_entropy_forward(x, cuda.to_device(np.zeros(2, np.int32)))
    with pytest.raises(ValueError, match=r"dy has shape \(2, 3\); expected \(\)"):
        cuda.dice_backward(x, x, target)
    with pytest.raises(ValueError, match="sizes sum to 4; expected 3"):
        cuda.concat_backward(x, [2, 2])
    with pytest.raises(ValueError, match="axis is 2"):
        cuda.softmax_forward(x, 2)


# ---- what is copied --------------------------------------------------------------------------------------------------


def test_what_is_on_the_device_stays_there(rng):
    x, target, weight, dy = there(rng.standard_normal((2, 6)), rng.random((2, 6)), rng.random(6), np.array(1.0))
    before = cuda.transfers()
    for name in ("smooth_l1", "sigmoid_focal", "dice"):
        getattr(cuda, f"{name}_forward")(x, target, reduction="mean")
        getattr(cuda, f"{name}_backward")(dy, x, target, reduction="mean")
    cuda.binary_cross_entropy_with_logits_forward(x, target, weight, weight)
    cuda.binary_cross_entropy_with_logits_backward(dy, x, target, weight, weight)
    cuda.concat_backward(cuda.concat_forward([x, target]), [6, 6])
    cuda.softmax_backward(x, cuda.softmax_forward(x))
    cuda.sigmoid_backward(x, cuda.sigmoid_forward(x))
    cuda.add_backward(cuda.add_forward(x, weight), x.shape, weight.shape)
    assert cuda.transfers() == before
    labels = cuda.to_device(rng.integers(0, 6, 2))
    before = cuda.transfers()
    cuda.cross_entropy_backward(dy, x, labels)
    assert np.subtract(cuda.transfers(), before).tolist() == [0, 0, 1, 4]  # one word: whether a class is out of range


def test_gradients_of_a_sum_are_new_arrays(rng):
    (dy,) = there(rng.standard_normal((2, 3)))
    da, db = cuda.add_backward(dy, (2, 3), (2, 3))
    assert len({id(a.raw) for a in (dy, da, db)}) == 3
    np.testing.assert_array_equal(host(da), host(dy))
