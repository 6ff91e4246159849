"""Overlap of boxes, non-maximum suppression and pasting of masks, on every backend."""

import numba
import numpy as np
import pytest
from case_rows_boxes import random_boxes
from cases import compare, of

import kernels

F32 = np.float32
BACKENDS = pytest.mark.parametrize("backend", kernels.BACKENDS)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
@pytest.mark.parametrize("case", of("iou", "suppression", "pasting"), ids=str)
def test_cpu_against_naive(case, dtype):
    compare("cpu", case, dtype)


# ---- answers worked out by hand -------------------------------------------------------------------------------------


@BACKENDS
@DTYPES
def test_overlap_by_hand(backend, dtype):
    a = np.array([[0, 0, 2, 2], [1, 1, 1, 1]], dtype)
    b = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 4, 4], [5, 5, 5, 5]], dtype)
    with np.errstate(all="raise"):
        iou = kernels.get(backend).box_iou(a, b)
    expected = np.array([[1, 1 / 7, 0, 0.25, 0], [0, 0, 0, 0, np.nan]]).astype(dtype)
    np.testing.assert_array_equal(iou, expected)


@BACKENDS
def test_the_overlap_must_exceed_the_threshold(backend):
    nms = kernels.get(backend).nms
    boxes = np.array([[0, 0, 2, 2], [0, 0, 1, 2]], F32)  # they overlap by exactly a half
    scores = np.array([1, 2], F32)
    assert nms(boxes, scores, 0.5).tolist() == [1, 0]
    assert nms(boxes, scores, 0.499).tolist() == [1]


@BACKENDS
def test_the_threshold_is_not_rounded_to_the_type_of_the_boxes(backend):
    # in float32, 0.3 is a little more than 0.3 is in float64: an overlap of float32's 0.3 exceeds the float64 number
    nms, scores = kernels.get(backend).nms, np.array([2, 1], F32)
    boxes = np.array([[0, 0, 10, 1], [0, 0, 3, 1]], F32)
    assert float(kernels.get(backend).box_iou(boxes, boxes)[0, 1]) > 0.3
    assert nms(boxes, scores, 0.3).tolist() == [0]
    # 0.7 is a little less
    boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], F32)
    assert nms(boxes, scores, 0.7).tolist() == [0, 1]


@BACKENDS
def test_a_suppressed_box_suppresses_nothing(backend):
    boxes = np.array([[0, 0, 4, 1], [1, 0, 5, 1], [2, 0, 6, 1]], F32)  # neighbours 0.6, the outer two 1/3
    assert kernels.get(backend).nms(boxes, np.array([3, 2, 1], F32), 0.5).tolist() == [0, 2]


@BACKENDS
def test_equal_scores_keep_their_order_and_zeros_of_both_signs_are_equal(backend):
    boxes = np.repeat(np.array([[0, 0, 1, 1]], F32), 4, axis=0) + 2 * np.arange(4, dtype=F32)[:, None]
    assert kernels.get(backend).nms(boxes, np.array([0.0, -0.0, 0.0, 1], F32), 0.5).tolist() == [3, 0, 1, 2]


@BACKENDS
def test_boxes_without_area_are_kept(backend):
    points = np.full((3, 4), 7, F32)
    assert kernels.get(backend).nms(points, np.array([1, 3, 2], F32), 0.0).tolist() == [1, 2, 0]


@BACKENDS
def test_infinite_scores_are_in_order(backend):
    boxes = np.array([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]], F32)
    assert kernels.get(backend).nms(boxes, np.array([-np.inf, 0, np.inf], F32), 0.5).tolist() == [2, 1, 0]


@BACKENDS
@DTYPES
def test_pasting_by_hand(backend, dtype):
    # one value of 1 in a border of zeros: 3 values over a box that grows from 2 pixels to 6 about its centre at 3, so
    # corners 0 and 6 (7 pixels, both ends included), each of 3/7 of a value; the middle pixel hits the 1
    pasted = kernels.get(backend).paste_masks(np.ones((1, 1, 1, 1), dtype), np.array([[2, 2, 4, 4]], dtype), (9, 8))
    line = np.array([0, 1 / 7, 4 / 7, 1, 4 / 7, 1 / 7, 0, 0])
    np.testing.assert_allclose(pasted[0, 0, :8], np.outer(line, line), atol=2e-7)
    assert not pasted[0, 0, 8].any()
    # a pixel further up and to the left: the grown box is cut at the picture's border
    moved = kernels.get(backend).paste_masks(np.ones((1, 1, 1, 1), dtype), np.array([[-1, -1, 1, 1]], dtype), 8)
    np.testing.assert_allclose(moved[0, 0, :4, :4], np.outer(line[3:7], line[3:7]), atol=2e-7)
    assert not moved[0, 0, 4:].any()


@BACKENDS
@pytest.mark.parametrize(
    "box",
    [[-90, 3, -60, 9], [60, 3, 90, 9], [3, -90, 9, -60], [3, 60, 9, 90], [30, 30, -30, -30]],
    ids=["left", "right", "above", "below", "reversed"],
)
def test_a_box_off_the_picture_pastes_nothing(backend, box):
    pasted = kernels.get(backend).paste_masks(np.ones((1, 1, 4, 4), F32), np.array([box], F32), (20, 20))
    assert pasted.shape == (1, 1, 20, 20)
    assert not pasted.any()


@BACKENDS
def test_a_huge_box_costs_only_the_pixels_of_the_picture(backend):
    far = 2.0**29
    box = np.array([[-far, -far, far, far]], F32)
    pasted = kernels.get(backend).paste_masks(np.ones((1, 1, 4, 4), F32), box, (5, 6))
    np.testing.assert_array_equal(pasted, np.ones((1, 1, 5, 6), F32))


# ---- determinism ----------------------------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_number_of_threads(rng):
    boxes, scores = random_boxes(rng, 3000, F32, 300), rng.standard_normal(3000).astype(F32)
    masks = rng.uniform(0, 1, (20, 1, 14, 14)).astype(F32)
    cpu, results, before = kernels.get("cpu"), [], numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(
                (cpu.nms(boxes, scores, 0.4), cpu.box_iou(boxes[:50], boxes), cpu.paste_masks(masks, boxes[:20], 300))
            )
    finally:
        numba.set_num_threads(before)
    expected = (kernels.get("naive").nms(boxes, scores, 0.4), kernels.get("naive").box_iou(boxes[:50], boxes))
    for found in results:
        for a, b in zip(found, expected, strict=False):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(found[2], results[0][2])


# ---- bad input ------------------------------------------------------------------------------------------------------

VALID = {
    "box_iou": {"a": np.zeros((2, 4), F32), "b": np.zeros((3, 4), F32)},
    "nms": {"boxes": np.zeros((2, 4), F32), "scores": np.zeros(2, F32), "iou_threshold": 0.5},
    "paste_masks": {"masks": np.zeros((2, 1, 5, 5), F32), "boxes": np.zeros((2, 4), F32), "image_size": (6, 7)},
}
NOT_FINITE = np.array([[0, 0, 1, 1], [0, np.nan, 1, np.inf]], F32)
BAD = [
    ("box_iou", {"a": [[0, 0, 1, 1]]}, TypeError, r"a is a list; expected a NumPy array"),
    ("box_iou", {"a": np.zeros((2, 4), int)}, TypeError, r"a has dtype int64; expected float32 or float64"),
    ("box_iou", {"b": np.zeros((2, 4))}, TypeError, r"b has dtype float64; expected float32"),
    ("box_iou", {"b": np.zeros((2, 5), F32)}, ValueError, r"b has shape \(2, 5\); expected \(N, 4\), a row \(x1, y1"),
    ("box_iou", {"a": np.zeros(4, F32)}, ValueError, r"a has shape \(4,\); expected \(N, 4\)"),
    ("box_iou", {"b": NOT_FINITE}, ValueError, r"b has y1 nan in row 1; expected finite coordinates"),
    ("nms", {"boxes": NOT_FINITE}, ValueError, r"boxes has y1 nan in row 1; expected finite coordinates"),
    ("nms", {"scores": np.zeros(3, F32)}, ValueError, r"scores has shape \(3,\); expected \(2,\), one per box"),
    ("nms", {"scores": np.zeros((2, 1), F32)}, ValueError, r"scores has shape \(2, 1\); expected \(2,\)"),
    ("nms", {"scores": np.zeros(2)}, TypeError, r"scores has dtype float64; expected float32"),
    ("nms", {"scores": np.array([0, np.nan], F32)}, ValueError, r"scores has nan in row 1; expected numbers"),
    ("nms", {"iou_threshold": 1.5}, ValueError, r"iou_threshold is 1.5; expected at most 1"),
    ("nms", {"iou_threshold": -0.1}, ValueError, r"iou_threshold is -0.1; expected at least 0"),
    ("nms", {"iou_threshold": np.nan}, ValueError, r"iou_threshold is nan; expected a finite number"),
    ("nms", {"iou_threshold": None}, TypeError, r"iou_threshold is None; expected a number"),
    ("paste_masks", {"masks": np.zeros((2, 5, 5), F32)}, ValueError, r"masks has shape \(2, 5, 5\); expected 4 axes"),
    ("paste_masks", {"masks": np.zeros((2, 2, 5, 5), F32)}, ValueError, r"masks has shape .*; expected \(N, 1, M, M\)"),
    ("paste_masks", {"masks": np.zeros((2, 1, 5, 4), F32)}, ValueError, r"masks has shape .*; expected \(N, 1, M, M\)"),
    ("paste_masks", {"masks": np.zeros((2, 1, 0, 0), F32)}, ValueError, r"masks has shape .*; expected \(N, 1, M, M\)"),
    (
        "paste_masks",
        {"boxes": np.zeros((3, 4), F32)},
        ValueError,
        r"boxes has shape .*; expected \(2, 4\), one box",
    ),
    ("paste_masks", {"boxes": NOT_FINITE}, ValueError, r"boxes has y1 nan in row 1; expected finite coordinates"),
    (
        "paste_masks",
        {"boxes": np.full((2, 4), 2e9, F32)},
        ValueError,
        r"boxes has x1 2000000000.0 in row 0; .* at most 1073",
    ),
    ("paste_masks", {"image_size": (0, 5)}, ValueError, r"image_size is 0; expected at least 1"),
    ("paste_masks", {"image_size": (5.0, 5)}, TypeError, r"image_size is 5.0; expected a whole number"),
]


@BACKENDS
@pytest.mark.parametrize(("function", "change", "error", "message"), BAD, ids=[f"{b[0]}-{b[3][:24]}" for b in BAD])
def test_bad_input_is_named(backend, function, change, error, message):
    with pytest.raises(error, match=message):
        getattr(kernels.get(backend), function)(**VALID[function] | change)
