"""The operators on boxes in ``tinyseg.ops``: tensors and arrays, and one suppression per class."""

import numpy as np
import pytest
from case_rows_boxes import random_boxes
from reference_arrays import stored

from tinyseg import Tensor, ops

F32 = np.float32
BOXES = stored("boxes")


def test_tensors_give_tensors_and_arrays_give_arrays():
    boxes, scores, classes = np.array([[0, 0, 2, 2], [0, 0, 2, 2]], F32), np.array([1, 2], F32), np.array([0, 0])
    masks = np.ones((2, 1, 3, 3), F32)
    for function, arguments in (
        (ops.box_iou, (boxes, boxes)),
        (ops.nms, (boxes, scores, 0.5)),
        (ops.batched_nms, (boxes, scores, classes, 0.5)),
        (ops.paste_masks, (masks, boxes, (4, 5))),
    ):
        array = function(*arguments)
        tensor = function(*(Tensor(a) if isinstance(a, np.ndarray) else a for a in arguments))
        assert isinstance(array, np.ndarray)
        assert isinstance(tensor, Tensor)
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype


def test_no_gradient_flows_into_boxes():
    boxes = Tensor(np.array([[0, 0, 2, 2]], F32), requires_grad=True)
    assert not ops.box_iou(boxes, boxes).requires_grad


def test_stored_batched_nms():
    kept = ops.batched_nms(*(BOXES[f"batched_nms/{name}"] for name in ("boxes", "scores", "idxs")), 0.5)
    # torchvision sorts equal scores of different classes in either order: compare the sets, and the scores in order
    np.testing.assert_array_equal(np.sort(kept), np.sort(BOXES["batched_nms/keep_vanilla"]))
    scores = BOXES["batched_nms/scores"]
    np.testing.assert_array_equal(scores[kept], scores[BOXES["batched_nms/keep_vanilla"]])


def test_classes_far_from_zero_and_far_apart_are_separate_runs(rng):
    boxes, scores = random_boxes(rng, 500, F32), rng.integers(0, 40, 500).astype(F32)
    classes = rng.choice([-(2**40), -1, 0, 7, 2**60], 500)
    kept = ops.batched_nms(boxes, scores, classes, 0.3)
    expected = []
    for c in np.unique(classes):
        members = np.flatnonzero(classes == c)
        expected.extend(members[ops.nms(boxes[members], scores[members], 0.3)])
    assert sorted(kept) == sorted(expected)
    assert len(set(classes[kept])) == 5
    order = list(zip(-scores[kept], kept, strict=True))
    assert order == sorted(order)


def test_a_box_survives_only_beside_other_classes():
    boxes, scores = np.array([[0, 0, 2, 2]] * 3, F32), np.array([1, 2, 3], F32)
    assert ops.batched_nms(boxes, scores, np.array([0, 1, 0]), 0.5).tolist() == [2, 1]


def test_no_boxes():
    kept = ops.batched_nms(np.zeros((0, 4), F32), np.zeros(0, F32), np.zeros(0, int), 0.5)
    assert (kept.shape, kept.dtype) == ((0,), np.int64)


@pytest.mark.parametrize("classes", [np.zeros(2), np.zeros(3, int), np.zeros((2, 1), int)])
def test_classes_that_do_not_fit(classes):
    with pytest.raises(ValueError, match=r"idxs has dtype .* and shape .*; expected integers, \(2,\)"):
        ops.batched_nms(np.zeros((2, 4), F32), np.zeros(2, F32), classes, 0.5)


def test_scores_that_do_not_fit():
    with pytest.raises(ValueError, match=r"scores has shape \(3,\); expected \(2,\), one per box"):
        ops.batched_nms(np.zeros((2, 4), F32), np.zeros(3, F32), np.zeros(2, int), 0.5)
