"""Dice, IoU and pixel error: answers by hand, conventions, and the identities that tie them together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyseg.evaluation.segmentation import SegmentationScores, confusion_counts, dice, iou, pixel_error

# Truth and prediction of six pixels: hits 2, misses 1, false alarms 1, rightly background 2.
TRUTH = np.array([[1, 1, 1], [0, 0, 0]])
FOUND = np.array([[1, 1, 0], [1, 0, 0]])


def test_counts_have_truth_in_rows_and_prediction_in_columns():
    counts = confusion_counts(FOUND, TRUTH, 2)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[2, 1], [1, 2]]
    assert confusion_counts([0, 1, 1], [0, 0, 2], 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_scores_of_six_pixels_by_hand():
    counts = confusion_counts(FOUND, TRUTH, 2)
    assert dice(counts).tolist() == [4 / 6, 4 / 6]
    assert iou(counts).tolist() == [2 / 4, 2 / 4]
    assert pixel_error(counts) == 2 / 6


def test_nothing_to_find_and_nothing_found_is_perfect():
    counts = confusion_counts(np.zeros((2, 2), int), np.zeros((2, 2), int), 3)
    assert dice(counts).tolist() == [1, 1, 1]
    assert iou(counts).tolist() == [1, 1, 1]
    assert pixel_error(counts) == 0


def test_nothing_to_find_but_something_found_is_zero():
    counts = confusion_counts([0, 1], [0, 0], 2)
    assert dice(counts)[1] == 0 and iou(counts)[1] == 0


def test_no_pixels_and_no_pictures():
    empty = confusion_counts(np.zeros((0, 4), int), np.zeros((0, 4), int), 2)
    assert empty.tolist() == [[0, 0], [0, 0]]
    assert dice(empty).tolist() == [1, 1] and pixel_error(empty) == 0
    assert all(np.isnan(value) for value in SegmentationScores().mean().values())
    assert all(np.isnan(value) for value in SegmentationScores().pooled().values())


def test_bool_masks_and_ignored_pixels():
    assert confusion_counts(FOUND == 1, TRUTH == 1, 2).tolist() == [[2, 1], [1, 2]]
    truth = np.array([[1, 255, 1], [0, 0, 255]])
    assert confusion_counts(FOUND, truth, 2, ignore_index=255).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "prediction, truth, classes, error, words",
    [
        ([0, 1], [0, 1, 1], 2, ValueError, r"shape \(2,\) and truth \(3,\)"),
        ([0, 2], [0, 1], 2, ValueError, "prediction holds class 2; expected 0 to 1"),
        ([0, 1], [0, -1], 2, ValueError, "truth holds class -1; expected 0 to 1"),
        ([0.5, 1], [0, 1], 2, TypeError, "prediction has dtype float64"),
        ([0, 1], [0, 1], 0, ValueError, "classes is 0"),
        ([0, 1], [0, 1], True, ValueError, "classes is True"),
    ],
)
def test_mistakes_are_named(prediction, truth, classes, error, words):
    with pytest.raises(error, match=words):
        confusion_counts(prediction, truth, classes)


@pytest.mark.parametrize("function", [dice, iou, pixel_error])
def test_counts_must_be_a_square_table(function):
    with pytest.raises(ValueError, match="counts has shape"):
        function(np.zeros((2, 3), int))


def test_pictures_weigh_the_same_in_the_mean_and_pixels_in_the_pool():
    scores = SegmentationScores()
    assert scores.update([[1, 1, 1, 0]], [[1, 1, 0, 0]], name="large")["dice"] == 4 / 5
    assert scores.update([[1]], [[0]], name="small") == {"name": "small", "dice": 0, "iou": 0, "pixel_error": 1}
    assert scores.mean()["dice"] == 2 / 5
    assert scores.pooled()["dice"] == 4 / 6
    assert scores.mean()["pixel_error"] == (1 / 4 + 1) / 2
    assert scores.pooled()["pixel_error"] == 2 / 5


def test_several_classes_are_averaged_with_the_background():
    scores = SegmentationScores(classes=3)
    entry = scores.update([0, 1, 1, 2], [0, 0, 1, 2])
    assert entry["iou_per_class"] == [1 / 2, 1 / 2, 1]
    assert entry["iou"] == pytest.approx(2 / 3, abs=1e-15)
    assert entry["dice_per_class"] == [2 / 3, 2 / 3, 1]
    summary = scores.summary()
    assert summary["counts"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert [picture["name"] for picture in summary["pictures"]] == ["0"]


def test_one_class_and_two_classes_have_the_same_counts_but_another_mean():
    one, two = SegmentationScores(1), SegmentationScores(2)
    one.update(FOUND[:, :2], TRUTH[:, :2])
    two.update(FOUND[:, :2], TRUTH[:, :2])
    assert one.counts.tolist() == two.counts.tolist()
    assert one.pooled()["iou"] == two.pooled()["iou_per_class"][1] != two.pooled()["iou"]


@pytest.mark.parametrize("classes", [0, 1.5, True])
def test_the_number_of_classes_is_checked(classes):
    with pytest.raises(ValueError, match="classes is"):
        SegmentationScores(classes)


masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=2, max_side=6), elements=st.integers(0, 3))


@given(st.data(), masks)
def test_identities(data, truth):
    found = data.draw(hnp.arrays(np.uint8, truth.shape, elements=st.integers(0, 3)))
    counts = confusion_counts(found, truth, 4)
    assert counts.sum() == truth.size
    # Dice and IoU order pictures alike: D = 2J / (1 + J). Both are symmetric in truth and prediction.
    np.testing.assert_allclose(dice(counts), 2 * iou(counts) / (1 + iou(counts)), rtol=1e-14)
    np.testing.assert_array_equal(dice(counts), dice(counts.T))
    assert pixel_error(counts) == pytest.approx((found != truth).mean(), abs=1e-15)
    for c in range(4):
        union = ((found == c) | (truth == c)).sum()
        assert iou(counts)[c] == (((found == c) & (truth == c)).sum() / union if union else 1)


@given(masks)
def test_a_picture_against_itself_is_perfect(truth):
    counts = confusion_counts(truth, truth, 4)
    assert (dice(counts) == 1).all() and (iou(counts) == 1).all() and pixel_error(counts) == 0
