"""Batches for detectors: what is in a target, what is left out, and that a batch depends on seed and step only."""

from dataclasses import replace

import numpy as np
import pytest

from tinyseg.data import DetectionBatches, Sample, SyntheticShapes, boxes_of, detection_augmentation, detection_target


def sample_of(**truth):
    """Four objects on 4 x 6 pixels: two that overlap, a crowd, and one without pixels."""
    masks = np.zeros((4, 4, 6), bool)
    masks[0, 0:2, 0:3] = masks[1, 1:3, 2:5] = masks[2, :, 5] = True
    given = {
        "picture": np.zeros((1, 4, 6), np.float32),
        "name": "p",
        "classes": np.array([2, 1, 1, 3]),
        "masks": masks,
        "crowd": np.array([False, False, True, False]),
        "boxes": np.float32([[0, 0, 3, 2], [2, 1, 5, 3], [5, 0, 6, 4], [1, 1, 2, 2]]),
    }
    return Sample(**{**given, **truth})


def test_a_target_by_hand():
    sample = sample_of()
    target = detection_target(sample)
    assert target["boxes"].tolist() == [[0, 0, 3, 2], [2, 1, 5, 3]] and target["boxes"].dtype == np.float32
    assert target["labels"].tolist() == [2, 1] and target["labels"].dtype == np.int64
    assert target["masks"].dtype == np.uint8
    np.testing.assert_array_equal(target["masks"], sample.masks[:2])
    assert target["masks"][:, 1, 2].tolist() == [1, 1]  # both objects have the pixel


def test_boxes_are_drawn_around_masks_where_there_are_none():
    target = detection_target(sample_of(boxes=None))
    assert target["boxes"].tolist() == [[0, 0, 3, 2], [2, 1, 5, 3]]
    target = detection_target(sample_of(boxes=None), masks=False)
    assert target["boxes"].tolist() == [[0, 0, 3, 2], [2, 1, 5, 3]] and "masks" not in target


def test_boxes_alone_are_cut_at_the_border_and_empty_ones_left_out():
    boxes = np.float32([[-3, 1, 2.5, 9], [1, 1, 1, 3], [6, 0, 9, 4], [0.5, 0, 6, 4]])
    target = detection_target(sample_of(boxes=boxes, masks=None, crowd=None))
    assert target["boxes"].tolist() == [[0, 1, 2.5, 4], [0.5, 0, 6, 4]] and target["labels"].tolist() == [2, 3]
    assert "masks" not in target


@pytest.mark.parametrize(
    "sample",
    [
        sample_of(crowd=np.ones(4, bool)),
        sample_of(crowd=np.ones(4, bool), boxes=None),
        Sample(
            np.zeros((1, 4, 6), np.float32),
            instances=np.zeros((4, 6), np.int32),
            classes=np.zeros(0, np.int64),
            boxes=np.zeros((0, 4), np.float32),
        ),
        Sample(np.zeros((1, 4, 6), np.float32), classes=np.zeros(0, np.int64), masks=np.zeros((0, 4, 6), bool)),
    ],
    ids=["crowds only", "crowds without boxes", "no numbered objects", "no masks"],
)
def test_no_objects(sample):
    target = detection_target(sample)
    assert target["boxes"].shape == (0, 4) and target["boxes"].dtype == np.float32
    assert target["labels"].shape == (0,) and target["labels"].dtype == np.int64
    assert target["masks"].shape == (0, 4, 6) and target["masks"].dtype == np.uint8
    for kind in ("turns", "strong", "photo", "none"):
        changed = detection_augmentation(kind)(
            sample.with_objects([False] * len(sample.classes)), np.random.default_rng(0)
        )
        assert detection_target(changed)["boxes"].shape == (0, 4)


BOXES = sample_of().boxes


@pytest.mark.parametrize(
    "truth, words",
    [
        ({"classes": None}, "picture p has no classes of objects; expected"),
        ({"boxes": None, "masks": None}, "picture p has neither boxes nor masks"),
        ({"boxes": BOXES[:3]}, r"picture p has boxes of shape \(3, 4\); expected \(4, 4\), as it has 4 classes"),
        ({"masks": np.zeros((4, 4, 5), bool)}, r"picture p has masks of shape \(4, 4, 5\); expected \(4, 4, 6\)"),
        ({"crowd": np.zeros(3, bool)}, r"picture p has crowd of shape \(3,\)"),
        ({"classes": np.array([1, 0, 1, 1])}, "picture p has an object of class 0; expected 1 or more"),
        ({"boxes": BOXES[:, [2, 1, 0, 3]]}, r"picture p: box 0 is reversed: \[3\.0, 0\.0, 0\.0, 2\.0\]"),
        ({"boxes": np.where(BOXES == 5, np.nan, BOXES)}, r"picture p: box 1 is not finite"),
        ({"boxes": np.where(BOXES == 6, np.inf, BOXES)}, r"picture p: box 2 is not finite"),
    ],
)
@pytest.mark.parametrize("augment", [None, detection_augmentation("strong")], ids=["as it is", "changed"])
def test_truth_that_is_wrong_is_named(truth, words, augment):
    with pytest.raises(ValueError, match=words):
        DetectionBatches([sample_of(**truth)], 1, augment=augment)[0]


# ---- batches -------------------------------------------------------------------------------------------------------


def assert_same_batch(a, b):
    for x, y in zip(a[0], b[0], strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(a[1], b[1], strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


def make(batch_size=3, seed=9, **options):
    data = SyntheticShapes(5, 64, count=(1, 4), radius=(6, 20))
    options = {"augment": detection_augmentation("strong"), "normalisation": "standardise", **options}
    return DetectionBatches(data, batch_size, seed, **options)


def test_a_batch_depends_on_seed_and_step_only():
    forth, back = make(), make()
    expected = [forth[step] for step in range(4)]
    for step in reversed(range(4)):
        assert_same_batch(back[step], expected[step])
    assert not np.array_equal(make(seed=10)[0][0][0], expected[0][0][0])


def test_the_changes_do_not_depend_on_the_batch_size_and_boxes_fit_their_masks():
    pictures, targets = make(6)[0]
    assert len(pictures) == len(targets) == 6
    for step, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
        assert_same_batch(make(1)[step], ([picture], [target]))
        numbered = np.zeros(picture.shape[1:], np.int32)
        for k, mask in enumerate(target["masks"], 1):
            numbered[mask > 0] = k
        np.testing.assert_array_equal(boxes_of(numbered, len(target["labels"])), target["boxes"])


def test_pictures_may_differ_in_size_and_are_normalised_whole(rng):
    data = [
        replace(sample_of(), picture=rng.random((1, 4, 6), dtype=np.float32)),
        sample_of(picture=rng.random((1, 9, 6), dtype=np.float32), masks=None),
    ]
    batches = DetectionBatches(data, 2, normalisation="standardise")
    pictures, targets = batches[0]
    assert sorted(picture.shape for picture in pictures) == [(1, 4, 6), (1, 9, 6)]
    assert sorted("masks" in target for target in targets) == [False, True]
    for picture in pictures:
        assert picture.dtype == np.float32 and abs(picture.mean()) < 1e-6 and abs(picture.std() - 1) < 1e-5


def test_without_masks():
    with_masks, without = make(augment=None)[2], make(augment=None, masks=False)[2]
    for a, b in zip(with_masks[1], without[1], strict=True):
        assert b.keys() == {"boxes", "labels"}
        np.testing.assert_array_equal(a["boxes"], b["boxes"])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_iterating_gives_the_same_batches(prefetch):
    batches = make()
    with batches.iterate(1, 4, prefetch) as iterator:
        for step, batch in enumerate(iterator, 1):
            assert_same_batch(batch, batches[step])
    assert step == 3


def test_what_batches_refuse():
    with pytest.raises(IndexError, match="step is -1; expected 0 or more"):
        make()[-1]
    with pytest.raises(ValueError, match="the data set is empty"):
        DetectionBatches([], 2)
    with pytest.raises(ValueError, match="batch_size is 0 and seed is 0"):
        DetectionBatches([sample_of()], 0)
