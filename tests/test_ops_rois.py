"""The RoI operators through the tape: gradients by finite differences, forms of boxes, arguments as in torchvision."""

import inspect

import numpy as np
import pytest
from tape_gradients import check_gradients

import tinyseg
from tinyseg import Tensor, ops


@pytest.fixture(params=["naive", "cpu"], autouse=True)
def backend(request):
    with tinyseg.use_backend(request.param):
        yield request.param


#: In picture coordinates of maps of 5x6 cells at scale 1/2: inside, partly outside, tiny, outside, whole.
CORNERS = np.array([[2, 1, 9, 11], [-6, 3, 8, 20], [4.2, 4.1, 4.4, 4.2], [30, 30, 50, 50], [0, 0, 12, 10]])
ROIS = np.column_stack([[0, 1, 0, 1, 0], CORNERS])


def distinct(*shape):
    """Return numbers that all differ by 0.05 or more: no ties."""
    size = int(np.prod(shape))
    return np.random.default_rng(1).permutation((np.arange(size) - size / 2) * 0.05).reshape(shape)


@pytest.mark.parametrize("output_size", [2, (5, 3)])
def test_roi_pool_gradients(output_size):
    check_gradients(lambda x: ops.roi_pool(x, ROIS, output_size, 0.5), distinct(2, 2, 5, 6))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 1, 2])
def test_roi_align_gradients(ratio, aligned):
    x = np.random.default_rng(2).normal(size=(2, 2, 5, 6))
    check_gradients(lambda x: ops.roi_align(x, ROIS, (2, 3), 0.5, ratio, aligned=aligned), x)


def test_answers_by_hand():
    ramp = Tensor(np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5), requires_grad=True)
    box = np.array([[0, 0, 0, 2, 2]], np.float32)
    y = ops.roi_align(ramp, box, 2, 1.0, 1, aligned=True)
    np.testing.assert_array_equal(y.numpy()[0, 0], [[0, 1], [5, 6]])
    y.sum().backward()
    expected = np.zeros((5, 5))
    expected[:2, :2] = 1
    np.testing.assert_array_equal(ramp.grad.numpy()[0, 0], expected)
    # cells 0 to 2 in bins of 1.5: the middle row and column belong to two
    np.testing.assert_array_equal(ops.roi_pool(ramp, box, 2).numpy()[0, 0], [[6, 7], [11, 12]])


OPERATORS = pytest.mark.parametrize(
    "operator", [lambda x, boxes: ops.roi_pool(x, boxes, 2), lambda x, boxes: ops.roi_align(x, boxes, 2, aligned=False)]
)


@OPERATORS
def test_every_form_of_boxes(operator):
    x = Tensor(distinct(2, 3, 5, 6))
    in_order = np.column_stack([[0, 0, 0, 1, 1], CORNERS / 2])
    expected = operator(x, in_order).numpy()
    assert expected.shape == (5, 3, 2, 2)
    lists = [CORNERS[:3] / 2, CORNERS[3:] / 2]
    for boxes in (Tensor(in_order), lists, tuple(lists), [Tensor(item) for item in lists]):
        np.testing.assert_array_equal(operator(x, boxes).numpy(), expected)
    # a picture without boxes, and whole numbers
    few = operator(x, [np.empty((0, 4)), np.array([[1, 1, 3, 3]])]).numpy()
    np.testing.assert_array_equal(few, operator(x, np.array([[1, 1, 1, 3, 3]])).numpy())
    for none in (np.empty((0, 5)), [np.empty((0, 4))] * 2):
        assert operator(x, none).shape == (0, 3, 2, 2)
    assert operator(Tensor(np.zeros((0, 3, 5, 6))), []).shape == (0, 3, 2, 2)


@OPERATORS
def test_boxes_take_the_type_of_the_map(operator):
    y = operator(Tensor(distinct(2, 3, 5, 6).astype(np.float32)), ROIS)
    assert y.dtype == np.float32


@OPERATORS
def test_no_boxes_give_a_gradient_of_zero(operator):
    x = Tensor(distinct(1, 2, 4, 4), requires_grad=True)
    operator(x, [np.empty((0, 4))]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros(x.shape))


@OPERATORS
def test_boxes_changed_after_the_call_do_not_change_the_gradient(operator):
    x, rois = Tensor(distinct(2, 2, 5, 6), requires_grad=True), ROIS.copy()
    y = operator(x, rois)
    rois[:] = 0
    y.sum().backward()
    gradient, x.grad = x.grad.numpy(), None
    operator(x, ROIS).sum().backward()
    np.testing.assert_array_equal(gradient, x.grad.numpy())


@OPERATORS
@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (Tensor(ROIS, requires_grad=True), ValueError, r"boxes requires gradients, which .* detach\(\) it"),
        ([CORNERS, Tensor(CORNERS, requires_grad=True)], ValueError, r"boxes\[1\] requires gradients"),
        ([CORNERS], ValueError, r"boxes is a list of 1; expected one array for each of 2 pictures"),
        ([CORNERS, ROIS], ValueError, r"boxes\[1\] has shape \(5, 5\); expected \(L, 4\)"),
        (CORNERS, ValueError, r"rois has shape \(5, 4\); expected \(K, 5\)"),
        ("boxes", TypeError, r"boxes is a str; expected a Tensor or a NumPy array"),
        ([[1, 2, 3, 4], CORNERS], TypeError, r"boxes\[0\] is a list; expected a Tensor or a NumPy array"),
        (ROIS > 1, TypeError, r"boxes has dtype bool; expected numbers"),
        (ROIS + [2, 0, 0, 0, 0], ValueError, r"row 0 of rois has batch index 2"),
    ],
)
def test_bad_boxes_are_named(operator, boxes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        operator(Tensor(distinct(2, 3, 5, 6)), boxes)


@OPERATORS
def test_what_float32_cannot_hold_is_named(operator):
    with pytest.raises(ValueError, match=r"^row 0 of rois has x2 inf; expected a finite number"):
        operator(Tensor(np.zeros((1, 1, 4, 4), np.float32)), np.array([[0, 1, 1, 1e300, 2]]))


def test_arguments_are_torchvision_s_but_aligned_must_be_named():
    assert list(inspect.signature(ops.roi_pool).parameters) == ["input", "boxes", "output_size", "spatial_scale"]
    names = ["input", "boxes", "output_size", "spatial_scale", "sampling_ratio", "aligned"]
    assert list(inspect.signature(ops.roi_align).parameters) == names
    with pytest.raises(TypeError, match="aligned"):
        ops.roi_align(Tensor(np.zeros((1, 1, 4, 4))), np.zeros((1, 5)), 2)


@pytest.mark.parametrize("levels", [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], ids=["mixed", "coarse", "fine"])
@pytest.mark.parametrize("op", ["align", "pool"])
def test_several_scales_equal_one_operator_per_level(op, levels, rng):
    boxes = [np.array([[0, 0, 9, 9], [3, 1, 12, 7.0]]), np.array([[2, 2, 8, 9], [5, 0, 15, 11.0]])]
    arrays, scales = [rng.standard_normal((2, 3, n, n)) for n in (16, 8)], [1.0, 0.5]
    maps = [Tensor(a, requires_grad=True) for a in arrays]
    y = ops.multi_scale_roi(maps, boxes, (2, 3), scales, np.array(levels), roi_op=op, sampling_ratio=2)
    dy = rng.standard_normal(y.shape)
    (y * Tensor(dy)).sum().backward()
    for level, (array, scale) in enumerate(zip(arrays, scales, strict=True)):
        rows = np.flatnonzero(np.array(levels) == level)
        if not len(rows):
            assert maps[level].grad is None
            continue
        rois = np.column_stack([[0, 0, 1, 1], np.concatenate(boxes)])[rows]
        x = Tensor(array, requires_grad=True)
        how = {"sampling_ratio": 2, "aligned": False} if op == "align" else {}
        one = getattr(ops, f"roi_{op}")(x, rois, (2, 3), scale, **how)
        (one * Tensor(dy[rows])).sum().backward()
        np.testing.assert_array_equal(y.numpy()[rows], one.numpy())
        np.testing.assert_array_equal(maps[level].grad.numpy(), x.grad.numpy())
