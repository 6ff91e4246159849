"""Augmentation of objects: picture, masks, numbers and boxes move alike, worked out by hand and in general."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyseg.data import Sample, augment, boxes_of, boxes_of_masks, detection_augmentation, shapes
from tinyseg.data.augment_objects import (
    MIN_VISIBLE,
    ChangePicture,
    ComposeObjects,
    FlipObjects,
    TurnObjects,
    ZoomObjects,
)

DRAWS = settings(derandomize=True, deadline=None, max_examples=40, database=None)


def by_hand():
    """A picture of 3 x 4 whose pixels are 0 to 11, and two objects, numbered and stacked."""
    picture = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    instances = np.array([[1, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 2]], np.int32)
    return Sample(
        picture,
        mask=np.array([0, 5, 6], np.uint8)[instances],
        instances=instances,
        classes=np.array([5, 6]),
        boxes=boxes_of(instances, 2),
        masks=instances == np.array([1, 2])[:, None, None],
    )


class Fixed:
    """Stands in for the generator: the quarter turns, magnification and corner that a test wants."""

    def __init__(self, *integers, scale=1.0):
        self._integers, self._scale = list(integers), scale

    def integers(self, low, high=None):
        value = self._integers.pop(0)
        assert (0 if high is None else low) <= value < (low if high is None else high)
        return value

    def uniform(self, low, high):
        return np.log(self._scale)


def assert_consistent(sample):
    """Numbers, masks, boxes and the mask of classes agree."""
    np.testing.assert_array_equal(
        sample.masks, sample.instances == np.arange(1, len(sample.classes) + 1)[:, None, None]
    )
    np.testing.assert_array_equal(sample.boxes, boxes_of_masks(sample.masks))
    assert sample.masks.any(axis=(1, 2)).all() and sample.boxes.dtype == np.float32
    assert sample.instances.dtype == np.int32 and sample.picture.shape[1:] == sample.mask.shape
    on_objects = sample.instances > 0
    np.testing.assert_array_equal(
        sample.mask[on_objects], np.concatenate([[0], sample.classes])[sample.instances][on_objects]
    )


# ---- by hand -------------------------------------------------------------------------------------------------------


def test_flips_by_hand():
    across = FlipObjects(1, 0)(by_hand(), np.random.default_rng(0))
    assert across.picture[0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert across.instances.tolist() == [[0, 0, 1, 1], [2, 0, 0, 1], [2, 0, 0, 0]]
    assert across.boxes.tolist() == [[2, 0, 4, 2], [0, 1, 1, 3]]
    down = FlipObjects(0, 1)(by_hand(), np.random.default_rng(0))
    assert down.picture[0].tolist() == [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert down.boxes.tolist() == [[0, 1, 2, 3], [3, 0, 4, 2]]
    for changed in (across, down):
        assert_consistent(changed)


@pytest.mark.parametrize(
    "turns, first, instances, boxes",
    [
        (0, [0, 1, 2, 3], [[1, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 2]], [[0, 0, 2, 2], [3, 1, 4, 3]]),
        (1, [3, 7, 11], [[0, 2, 2], [0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 2, 2, 4], [1, 0, 3, 1]]),
        (2, [11, 10, 9, 8], [[2, 0, 0, 0], [2, 0, 0, 1], [0, 0, 1, 1]], [[2, 1, 4, 3], [0, 0, 1, 2]]),
        (3, [8, 4, 0], [[0, 1, 1], [0, 0, 1], [0, 0, 0], [2, 2, 0]], [[1, 0, 3, 2], [0, 3, 2, 4]]),
    ],
)
def test_quarter_turns_by_hand(turns, first, instances, boxes):
    turned = TurnObjects()(by_hand(), Fixed(turns))
    assert turned.picture[0, 0].tolist() == first and turned.instances.tolist() == instances
    assert turned.boxes.tolist() == boxes
    assert_consistent(turned)
    alone = TurnObjects()(replace(by_hand(), masks=None, instances=None), Fixed(turns))
    assert alone.boxes.tolist() == boxes


def test_twice_as_large_by_hand():
    doubled = ZoomObjects((1, 2), size=(4, 4))(by_hand(), Fixed(0, 4, scale=2))  # the upper right quarter
    assert doubled.instances.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert doubled.classes.tolist() == [6] and doubled.boxes.tolist() == [[2, 2, 4, 4]]
    assert doubled.picture[0, 0].tolist() == [1.75, 2.25, 2.75, 3]
    assert_consistent(doubled)


def test_half_as_large_gets_a_margin_of_the_mean_colour():
    picture = np.stack([np.arange(16).reshape(4, 4), np.full((4, 4), 3)]).astype(np.float32)
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :, 2:] = True
    small = ZoomObjects((0.5, 1))(Sample(picture, classes=np.ones(1), masks=masks), Fixed(-1, -2, scale=0.5))
    mean = 7.5
    rows = [[mean] * 4, [mean, mean, 2.5, 4.5], [mean, mean, 10.5, 12.5], [mean] * 4]
    assert small.picture[0].tolist() == rows and (small.picture[1] == 3).all()
    assert small.boxes.tolist() == [[3, 1, 4, 3]] and small.masks.sum() == 2


def test_a_plain_cut_copies_pixels():
    sample = by_hand()
    cut = ZoomObjects((1, 1), size=2)(sample, Fixed(1, 2))
    np.testing.assert_array_equal(cut.picture, sample.picture[:, 1:3, 2:4])
    assert cut.instances.tolist() == [[0, 1], [0, 1]] and cut.classes.tolist() == [6]


def test_what_is_hardly_left_is_dropped():
    masks = np.zeros((2, 4, 40), bool)
    masks[0, 0, 10:30] = masks[1, 1, 11:31] = True  # 1 and 2 of their 20 pixels come within the first 11 and 13
    sample = Sample(
        np.zeros((1, 4, 40), np.float32), classes=np.array([7, 8]), masks=masks, boxes=boxes_of_masks(masks)
    )
    assert MIN_VISIBLE == 0.1
    for some in (sample, replace(sample, masks=None)):
        assert ZoomObjects((1, 1), (4, 12))(some, Fixed(0, 0)).classes.tolist() == [7]
        cut = ZoomObjects((1, 1), (4, 13))(some, Fixed(0, 0))
        assert cut.classes.tolist() == [7, 8] and cut.boxes.tolist() == [[10, 0, 13, 1], [11, 1, 13, 2]]
        assert ZoomObjects((1, 1), (4, 11))(some, Fixed(0, 0)).classes.tolist() == []


def test_masks_that_overlap_stay_whole():
    masks = np.zeros((2, 5, 5), bool)
    masks[0, :3], masks[1, 2:] = True, True
    sample = Sample(np.zeros((1, 5, 5), np.float32), classes=np.ones(2, int), masks=masks, crowd=np.array([0, 1], bool))
    turned = TurnObjects()(sample, Fixed(1))
    assert turned.masks.sum(axis=(1, 2)).tolist() == [15, 15] and (turned.masks.all(axis=0)[:, 2]).all()
    assert turned.boxes.tolist() == [[0, 0, 3, 5], [2, 0, 5, 5]] and turned.crowd.tolist() == [False, True]


def test_pictures_without_objects_move_with_their_mask():
    sample = Sample(np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.arange(6).reshape(2, 3))
    for transform in (FlipObjects(1, 1), TurnObjects(), ZoomObjects((1, 1), size=(2, 2))):
        changed = transform(sample, np.random.default_rng(5))
        np.testing.assert_array_equal(changed.picture[0], changed.mask)
        assert changed.boxes is None and changed.instance_masks is None
    numbered = replace(by_hand(), classes=None, masks=None, boxes=None)  # numbers without classes move too
    np.testing.assert_array_equal(FlipObjects(1, 0)(numbered, np.random.default_rng(0)).instances[0], [0, 0, 1, 1])


# ---- in general ----------------------------------------------------------------------------------------------------


def made(seed, size=(40, 56)):
    """Return shapes, numbered and stacked."""
    sample = shapes(size, seed, count=(2, 5), radius=(5, 14), channels=1)
    return replace(sample, masks=sample.instance_masks)


MOVES = [FlipObjects(), TurnObjects(), ZoomObjects(), ZoomObjects((0.5, 2.0), (30, 33)), ZoomObjects((1, 1), 24)]
seeds = st.integers(0, 10**6)


@DRAWS
@given(seed=seeds, across=st.booleans(), down=st.booleans())
def test_flipping_twice_changes_nothing(seed, across, down):
    sample, flip = made(seed), FlipObjects(float(across), float(down))
    twice = flip(flip(sample, np.random.default_rng(0)), np.random.default_rng(0))
    for name in ("picture", "mask", "instances", "masks", "boxes", "classes"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(sample, name))


@DRAWS
@given(seed=seeds)
def test_four_quarter_turns_change_nothing(seed):
    sample = turned = made(seed)
    for _ in range(4):
        turned = TurnObjects()(turned, Fixed(1))
    for name in ("picture", "mask", "instances", "masks", "boxes"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(sample, name))


@DRAWS
@given(seed=seeds, move=st.sampled_from(MOVES))
def test_numbers_and_stacked_masks_agree(seed, move):
    sample = made(seed)
    both = move(sample, np.random.default_rng(seed))
    assert_consistent(both)
    for alone in ({"masks": None}, {"instances": None}):
        other = move(replace(sample, **alone), np.random.default_rng(seed))
        np.testing.assert_array_equal(other.picture, both.picture)
        np.testing.assert_array_equal(other.instance_masks, both.masks)
        np.testing.assert_array_equal(other.boxes, both.boxes)
        np.testing.assert_array_equal(other.classes, both.classes)


@DRAWS
@given(seed=seeds, move=st.sampled_from([FlipObjects(), TurnObjects()]))
def test_boxes_of_moved_masks_are_moved_boxes(seed, move):
    sample = made(seed)
    masks = move(sample, np.random.default_rng(seed))
    boxes = move(replace(sample, masks=None, instances=None), np.random.default_rng(seed))
    np.testing.assert_array_equal(masks.boxes, boxes.boxes)


@DRAWS
@given(seed=seeds, scale=st.floats(0.5, 2))
def test_boxes_of_zoomed_masks_are_zoomed_boxes_to_half_a_pixel(seed, scale):
    sample, zoom = made(seed, (40, 40)), ZoomObjects((scale, scale), (100, 100))  # large enough to cut nothing off
    masks = zoom(sample, np.random.default_rng(seed)).boxes
    boxes = zoom(replace(sample, masks=None, instances=None), np.random.default_rng(seed)).boxes
    assert masks.shape == boxes.shape == sample.boxes.shape
    outward = (masks - boxes) * np.float32([-1, -1, 1, 1])
    assert outward.max() <= 0.5 + 1e-4
    if scale >= 1:  # no pixel is left out
        assert outward.min() >= -0.5 - 1e-4


@DRAWS
@given(seed=seeds, move=st.sampled_from(MOVES))
def test_picture_and_objects_move_alike(seed, move):
    sample = made(seed)
    bright = replace(sample, picture=(sample.instances > 0)[None].astype(np.float32))
    changed = move(bright, np.random.default_rng(seed))
    sure = np.abs(changed.picture[0] - 0.5) > 0.3
    shown = changed.mask > 0  # objects that were dropped are still in the picture, and in the mask
    margin = changed.picture[0] == bright.picture.mean()
    np.testing.assert_array_equal((changed.picture[0] > 0.5)[sure & ~margin], shown[sure & ~margin])


@pytest.mark.parametrize("kind", ["turns", "strong", "photo", "none"])
def test_the_generator_decides_everything_and_the_sample_stays(kind):
    sample, change = made(3), detection_augmentation(kind)
    before = {name: np.copy(getattr(sample, name)) for name in ("picture", "mask", "instances", "masks", "boxes")}
    for name in before:
        getattr(sample, name).flags.writeable = False
    a, b = (change(sample, np.random.default_rng(4)) for _ in range(2))
    c = change(sample, np.random.default_rng(5))
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(getattr(sample, name), array)
    assert np.array_equal(a.picture, c.picture) == (kind == "none")
    assert (a is sample) == (kind == "none")
    assert_consistent(a)


def test_kinds_do_what_they_say():
    sample = made(1)
    assert {detection_augmentation("turns")(sample, np.random.default_rng(s)).picture.shape for s in range(9)} == {
        (1, 40, 56),
        (1, 56, 40),
    }
    for kind in ("turns", "strong", "photo", "none"):
        changed = detection_augmentation(kind, size=(32, 64))(sample, np.random.default_rng(8))
        assert sorted(changed.picture.shape[1:]) == [32, 64] and changed.picture.dtype == np.float32
    photo = detection_augmentation("photo")
    tilted = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (1, 40, 56))
    for seed in range(9):
        picture = photo(Sample(tilted), np.random.default_rng(seed)).picture
        assert picture.shape == (1, 40, 56) and picture[0, 10, 20:40].mean() < picture[0, 30, 20:40].mean()
    with pytest.raises(ValueError, match="augment is 'flip'; expected one of 'turns', 'strong', 'photo', 'none'"):
        detection_augmentation("flip")


def test_values_change_and_objects_stay():
    sample = made(2)
    changed = ComposeObjects([ChangePicture(augment.Brightness(0.5))])(sample, np.random.default_rng(0))
    assert changed.masks is sample.masks and changed.boxes is sample.boxes
    assert np.ptp(changed.picture - sample.picture) < 1e-6 and abs((changed.picture - sample.picture).mean()) > 1e-3


def test_parameters_out_of_range_are_named():
    with pytest.raises(ValueError, match="horizontal is 2; expected 0 to 1"):
        FlipObjects(2)
    with pytest.raises(ValueError, match=r"scale is \(0, 1\); expected \(smallest, largest\), above 0"):
        ZoomObjects((0, 1))
    with pytest.raises(ValueError, match="size is 0; expected one or two whole numbers of at least 1"):
        ZoomObjects(size=0)
