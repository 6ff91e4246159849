import json

import numpy as np
import pytest
from cuda_traced import traced
from numba import config as numba_config
from tolerances import TOLERANCES

import tinyseg
from kernels import cuda
from kernels.naive import roi_align as naive
from tinyseg import Tensor, explain, ops
from tinyseg.backend import atomic_gradients
from tinyseg.explain.rois.orders import last_places

OPS = ("roi_pool", "roi_align", "roi_align_aligned")
#: On the map, across each edge, off it, smaller than a cell; on the first and the second of two pictures.
ROIS = np.array(
    [
        [0, 1.3, 0.4, 6.2, 5.1], [1, -1.5, -2.2, 3.1, 2.7], [1, 4.4, 3.6, 10.1, 7.9], [0, 2.1, 2.2, 2.6, 2.5],
        [0, 12.0, 1.0, 15.0, 4.0], [1, 0.0, 0.0, 8.0, 6.0],
    ]
)  # fmt: skip


class Counted:
    """An array that counts how often something is added to each of its elements."""

    def __init__(self, shape):
        self.shape, self.values, self.additions = shape, np.zeros(shape), np.zeros(shape, int)

    def __getitem__(self, place):
        return self.values[place]

    def __setitem__(self, place, value):
        self.values[place] = value
        self.additions[place] += 1


def test_a_box_by_hand():
    # box [0, 0, 2, 2]: RoIPool takes cells 0 to 2, the largest is the last; aligned, one sample lies between four cells
    ramp = np.arange(16.0).reshape(4, 4)
    found = explain.roi_gradients(ramp, [[0, 0, 2, 2]], output_size=1, sampling_ratio=1, dy=[[[[2.0]]]])
    pool, plain, aligned = (found[op] for op in OPS)
    expected = np.zeros((4, 4))
    expected[2, 2] = 2
    np.testing.assert_array_equal(pool.gradient[0, 0], expected)
    np.testing.assert_array_equal(pool.additions[0, 0], expected > 0)
    # not aligned, it lies on cell (1, 1): three of its four neighbours are added to with weight 0
    assert plain.gradient[0, 0, 1, 1] == 2 and np.count_nonzero(plain.gradient) == 1
    assert plain.additions[0, 0, 1:3, 1:3].tolist() == [[1, 1], [1, 1]] and plain.additions.sum() == 4
    assert aligned.gradient[0, 0, :2, :2].tolist() == [[0.5, 0.5], [0.5, 0.5]] and aligned.gradient.sum() == 2
    assert found.numbers("roi_align") == {
        "given": 2.0, "total": 2.0, "cells_reached": 1, "additions": 4, "most": 1, "atomic": 4,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_the_tape(rng, dtype):
    x, dy = rng.standard_normal((2, 3, 6, 8)).astype(dtype), rng.standard_normal((6, 3, 2, 3)).astype(dtype)
    found = explain.roi_gradients(x, ROIS, output_size=(2, 3), dy=Tensor(dy).numpy(), orders=0)
    for op in OPS:
        tensor, boxes = Tensor(x, requires_grad=True), ROIS.astype(dtype)
        if op == "roi_pool":
            y = ops.roi_pool(tensor, boxes, (2, 3))
        else:
            y = ops.roi_align(tensor, boxes, (2, 3), sampling_ratio=2, aligned=op == "roi_align_aligned")
        y.backward(dy)
        np.testing.assert_array_equal(found[op].gradient, tensor.grad.numpy())
        assert found[op].orders is None


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_additions_are_those_of_the_textbooks_loops(rng, aligned, ratio):
    x = rng.standard_normal((2, 1, 6, 8))
    op = "roi_align_aligned" if aligned else "roi_align"
    found = explain.roi_gradients(x, ROIS, output_size=(2, 3), sampling_ratio=ratio, ops=op, orders=0)
    dx = Counted(x.shape)
    kernel = getattr(naive._roi_align_gradient_kernel, "py_func", naive._roi_align_gradient_kernel)
    kernel(dx, np.ones((6, 1, 2, 3)), ROIS, 1.0, ratio, aligned)
    np.testing.assert_array_equal(found[op].additions, dx.additions)
    assert dx.additions.max() > 4
    np.testing.assert_allclose(found[op].gradient, dx.values, rtol=1e-12)


def test_additions_of_roi_pool_are_its_maxima(rng):
    x = rng.standard_normal((2, 3, 6, 8))
    found = explain.roi_gradients(x, ROIS, output_size=3, ops="roi_pool", orders=0)["roi_pool"]
    # where every output has a gradient of 1, the sum is the number of additions
    np.testing.assert_array_equal(found.additions, found.gradient)
    np.testing.assert_array_equal(found.atomic, found.additions)
    assert found.additions.max() > 1


@pytest.mark.parametrize("op", OPS)
def test_atomic_operations_are_those_of_the_kernel(rng, op):
    # counted by running the kernel's threads one by one; of 5 channels it takes four together
    x, rois = rng.standard_normal((2, 5, 6, 8)).astype(np.float32), ROIS.astype(np.float32)
    found = explain.roi_gradients(x, rois, output_size=(2, 3), ops=op, orders=0)[op]
    dy = np.ones((6, 5, 2, 3), np.float32)
    with traced() as traces, atomic_gradients():
        if op == "roi_pool":
            _, argmax = tinyseg.backend.kernel("roi_pool_forward")(x, rois, (2, 3), 1.0)
            cuda.roi_pool_backward(dy, rois, argmax, x.shape)
        else:
            cuda.roi_align_backward(dy, rois, x.shape, 1.0, 2, aligned=op == "roi_align_aligned")
    (trace,) = (trace for _, trace in traces if trace.kernel == "scatter_kernel" or "dx" in trace.totals())
    elements = [access.element for access in trace.accesses(array="dx") if access.kind == "atomic"]
    np.testing.assert_array_equal(np.bincount(elements, minlength=x.size).reshape(x.shape), found.atomic)


def test_what_is_given_arrives_where_boxes_are_inside(rng):
    x, dy = rng.standard_normal((9, 9)), rng.uniform(1, 2, (2, 1, 3, 3))
    inside = explain.roi_gradients(x, [[1, 1, 6, 7], [2, 3, 8, 8]], output_size=3, dy=dy, orders=0)
    for op in OPS:
        numbers = inside.numbers(op)
        assert numbers["given"] == dy.sum() and abs(numbers["total"] - dy.sum()) < 1e-13
    outside = explain.roi_gradients(x, [[1, 1, 6, 7], [7, 3, 14, 8]], output_size=3, dy=dy, orders=0)
    for op in OPS:
        assert outside.numbers(op)["total"] < 0.95 * dy.sum()


# ---- the order of additions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_in_the_last_place(dtype):
    one = dtype(1)
    values = np.array([1, 1, -1, 0.0, 5e-324 if dtype is np.float64 else 1e-45, 1], dtype)
    others = np.array([1, np.nextafter(one, dtype(2)), np.nextafter(-one, -dtype(2)), -0.0, 0, 1 - 4e-7], dtype)
    wanted = [0, 1, 1, 0, 1, 7 if dtype is np.float32 else round(4e-7 * 2**53)]
    assert last_places(values, others).tolist() == wanted
    assert last_places(others, values).tolist() == wanted


def replayed(monkeypatch):
    monkeypatch.setattr(tinyseg.backend, "cuda_runs_on", lambda: None)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_replayed_is_what_the_kernels_add(rng, op, dtype):
    from tinyseg.explain.rois.gradients import _Step

    x, rois = rng.standard_normal((2, 3, 6, 8)).astype(dtype), ROIS.astype(dtype)
    dy = rng.standard_normal((6, 3, 2, 3)).astype(dtype)
    step = _Step(op, x, rois, (2, 3), 1.0, 2)
    gradient, (additions, _) = step.backward(dy), step.counts()
    for channel in range(3):
        place, value = step.parts(dy, channel)
        assert value.dtype == dtype
        np.testing.assert_array_equal(np.bincount(place, minlength=96).reshape(2, 6, 8), additions[:, channel])
        total = np.bincount(place, value.astype(np.float64), minlength=96).reshape(2, 6, 8)
        bound = 4 * TOLERANCES["roi_align"].of(dtype)
        np.testing.assert_allclose(gradient[:, channel], total, rtol=0, atol=bound)


def test_random_orders_differ_in_the_last_digits(rng, monkeypatch):
    replayed(monkeypatch)
    x = rng.standard_normal((2, 16, 16)).astype(np.float32)
    corners = rng.uniform(0, 8, (40, 2))
    rois = np.concatenate([corners, corners + rng.uniform(1, 8, (40, 2))], axis=1)
    found = explain.roi_gradients(x, rois, output_size=3)
    for op in OPS:
        orders = found[op].orders
        assert (orders.how, orders.orders, orders.channels) == ("replay", 8, 2)
        assert orders.cells == np.count_nonzero(found[op].additions)
        assert orders.differing == np.count_nonzero(orders.off_by) and orders.most == orders.off_by.max()
        # two numbers add up to the same in either order
        assert not orders.off_by[found[op].additions <= 2].any()
    assert found["roi_align"].orders.differing > 100 and 0 < found["roi_align"].orders.largest < 1e-4
    again = explain.roi_gradients(x, rois, output_size=3)
    np.testing.assert_array_equal(again["roi_align"].orders.off_by, found["roi_align"].orders.off_by)


def test_numbers_that_add_up_exactly_do_not_depend_on_order(rng, monkeypatch):
    replayed(monkeypatch)
    x = rng.standard_normal((8, 8)).astype(np.float32)
    rois = [[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6]] * 4
    dy = rng.integers(-8, 8, (12, 1, 2, 2))
    found = explain.roi_gradients(x, rois, output_size=2, dy=dy)  # weights are quarters and eighths
    assert [found[op].orders.most for op in OPS] == [0, 0, 0]


def test_only_so_many_channels_are_replayed(rng, monkeypatch):
    replayed(monkeypatch)
    monkeypatch.setattr("tinyseg.explain.rois.orders._MOST_ADDITIONS", 2 * 96)
    found = explain.roi_gradients(rng.standard_normal((3, 9, 9)), [[1, 1, 7, 7]], output_size=(2, 3), orders=1)
    assert found["roi_align"].orders.channels == 2 and found["roi_pool"].orders.channels == 3
    assert "channels: 2." in found["roi_align"].orders.words()


@pytest.mark.cuda
@pytest.mark.parametrize("op", OPS)
def test_both_forms_of_the_gradient_on_the_gpu(rng, op):
    x, rois = rng.standard_normal((2, 3, 6, 8)).astype(np.float32), ROIS.astype(np.float32)
    dy = rng.standard_normal((6, 3, 2, 3)).astype(np.float32)
    assert cuda.is_deterministic()
    orders = explain.roi_gradients(x, rois, output_size=(2, 3), dy=dy, ops=op, orders=2)[op].orders
    assert cuda.is_deterministic()
    assert orders.how == ("simulator" if numba_config.ENABLE_CUDASIM else "GPU")
    assert orders.off_by.shape == x.shape and orders.largest < 1e-5
    with tinyseg.use_backend("cuda"):
        found = explain.roi_gradients(x, rois, output_size=(2, 3), dy=dy, ops=op, orders=0)[op]
    assert isinstance(found.gradient, np.ndarray)
    assert not orders.off_by[found.additions <= 1].any()


def test_atomic_gradients_end_with_their_block():
    with pytest.raises(KeyError), atomic_gradients():
        assert not cuda.is_deterministic()
        raise KeyError
    assert cuda.is_deterministic()


# ---- table, JSON, figure ---------------------------------------------------------------------------------------------


def test_table_and_json(rng, monkeypatch):
    replayed(monkeypatch)
    found = explain.roi_gradients((2, 3, 6, 8), ROIS, output_size=(2, 3), orders=2)
    assert found.features.shape == (2, 3, 6, 8) and found.features.dtype == np.float32
    text = str(found)
    assert text.startswith("6 boxes of 2x3 bins on 2x3x6x8 cells of float32\n")
    numbers, orders = found.numbers("roi_align"), found["roi_align"].orders
    row = next(line for line in text.splitlines() if line.startswith("RoIAlign, not aligned"))
    assert f"{numbers['additions']}  " in row and f"{orders.differing} of {orders.cells}  " in row
    assert "order: a replay on the processor: the same numbers added in 2 random orders" in text
    whole = json.loads(found.to_json())
    assert set(whole["operators"]) == set(OPS)
    np.testing.assert_array_equal(whole["operators"]["roi_align"]["additions_to_each"], found["roi_align"].additions)
    assert whole["operators"]["roi_align"]["orders"]["how"] == "replay"


def test_figure_shares_colours_in_each_row(rng, monkeypatch):
    replayed(monkeypatch)
    found = explain.roi_gradients(rng.standard_normal((2, 6, 6)), ROIS[[0, 3], 1:], output_size=2)
    figure = found.figure()
    maps = [axes for axes in figure.axes if axes.get_title()]
    assert len(maps) == 9
    for first in (0, 3, 6):
        scales = [axes.images[0].get_clim() for axes in maps[first : first + 3]]
        assert len(set(scales)) == 1
    assert maps[0].get_title() == "RoIPool\n16 of 16 arrives"
    one = found.figure(channel=1)
    np.testing.assert_array_equal(np.ma.filled(one.axes[0].images[0].get_array(), 0), found["roi_pool"].gradient[0, 1])
    without = explain.roi_gradients(rng.standard_normal((6, 6)), ROIS[:1, 1:], output_size=2, orders=0, ops=OPS[1:])
    assert len([axes for axes in without.figure().axes if axes.get_title()]) == 4
    for wrong in ({"picture": 1}, {"channel": 2}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is"):
            found.figure(**wrong)


def test_no_boxes_at_all():
    found = explain.roi_gradients((1, 1, 4, 4), np.zeros((0, 5)), output_size=2)
    assert all(not found[op].gradient.any() and found[op].orders is None for op in OPS)
    assert "0 boxes" in str(found) and found.figure().axes


def test_nothing_is_changed(rng):
    x, state = rng.standard_normal((5, 5)), tinyseg.random.get_state()
    copy = x.copy()
    explain.roi_gradients(x, [[0, 0, 3, 3]], output_size=2, orders=1)
    np.testing.assert_array_equal(x, copy)
    assert str(tinyseg.random.get_state()) == str(state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rois": [[0, 0, 1]]}, r"rois has shape \(1, 3\); expected boxes of four numbers"),
        ({"rois": [[3, 0, 0, 1, 1]]}, "row 0 of rois has batch index 3"),
        ({"dy": np.ones((1, 1, 1, 1))}, r"dy has shape \(1, 1, 1, 1\); expected \(1, 1, 2, 2\)"),
        ({"orders": -1}, "orders is -1; expected at least 0"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"ops": "crop_and_resize"}, "ops has 'crop_and_resize', whose gradient is not shown"),
        ({"rois": [[3, 0, 1, 2]], "sampling_ratio": 0}, "expected no reversed box with aligned=True"),
    ],
)
def test_what_does_not_fit_is_said(change, words):
    arguments = {"features": np.zeros((4, 4)), "rois": [[0, 0, 2, 2]], "output_size": 2} | change
    with pytest.raises(ValueError, match=words):
        explain.roi_gradients(arguments.pop("features"), arguments.pop("rois"), **arguments)
