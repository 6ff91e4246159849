"""Augmentation: picture and mask change alike, the generator decides everything, arguments stay as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseg.data import augment, cells, default_augmentation
from tinyseg.data.augment import (
    Brightness,
    Compose,
    Contrast,
    Crop,
    Elastic,
    Flip,
    Noise,
    Rotate,
    Rotate90,
    WarpedCrop,
    mirror,
    resample,
)

PLACE = [Flip(), Rotate90(), Rotate(), Crop(40), Elastic(), WarpedCrop(40), WarpedCrop((24, 56), probability=1.0)]
VALUE = [Brightness(), Contrast(), Noise()]


@pytest.fixture
def pair(rng):
    """A smooth picture of two channels, and its mask."""
    rows, columns = np.mgrid[:60, :70].astype(np.float32)
    picture = np.stack([np.sin(rows / 9) + np.cos(columns / 7), rows / 60]).astype(np.float32)
    return picture, (picture[0] > 0.2).astype(np.uint8)


@pytest.mark.parametrize(
    "transform", [*PLACE, *VALUE, default_augmentation(32), default_augmentation((16, 48), upright=True)], ids=repr
)
def test_types_order_and_arguments(pair, transform):
    picture, mask = (array.copy() for array in pair)
    picture.flags.writeable = mask.flags.writeable = False
    a = transform(picture, mask, np.random.default_rng(1))
    b = transform(picture, mask, np.random.default_rng(1))
    c = transform(picture, mask, np.random.default_rng(2))
    assert a[0].dtype == np.float32 and a[1].dtype == np.uint8 and a[0].shape[1:] == a[1].shape
    assert a[0].shape[0] == 2
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert a[0].shape != c[0].shape or not np.array_equal(a[0], c[0])
    np.testing.assert_array_equal(picture, pair[0])
    alone = transform(picture, None, np.random.default_rng(1))
    assert alone[1] is None
    np.testing.assert_array_equal(alone[0], a[0])


@pytest.mark.parametrize("transform", PLACE, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_picture_and_mask_move_alike(pair, transform, seed):
    picture, mask = transform(*pair, np.random.default_rng(seed))
    sure = np.abs(picture[0] - 0.2) > 0.15  # away from the border of the mask, where half a pixel counts
    assert sure.mean() > 0.5
    np.testing.assert_array_equal((picture[0] > 0.2)[sure], mask[sure])


@pytest.mark.parametrize("transform", PLACE, ids=repr)
def test_no_new_classes_appear_and_a_constant_stays_constant(transform, rng):
    mask = rng.choice(np.array([0, 3, 250], np.int32), (50, 45))
    picture = np.full((1, 50, 45), 0.7, np.float32)
    for seed in range(5):
        changed, classes = transform(picture, mask, np.random.default_rng(seed))
        assert set(np.unique(classes)) <= {0, 3, 250} and classes.dtype == np.int32
        np.testing.assert_allclose(changed, 0.7, rtol=1e-6)


def test_flip_and_quarter_turns_by_hand():
    picture, mask = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.arange(6).reshape(2, 3)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Flip(1, 0)(picture, mask, rng)[0][0], [[2, 1, 0], [5, 4, 3]])
    np.testing.assert_array_equal(Flip(0, 1)(picture, mask, rng)[1], [[3, 4, 5], [0, 1, 2]])
    np.testing.assert_array_equal(Flip(0, 0)(picture, mask, rng)[1], mask)
    seen = {tuple(Rotate90()(picture, mask, np.random.default_rng(s))[1].ravel()) for s in range(20)}
    assert seen == {(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)}  # not square: half turns only
    square = np.arange(4).reshape(2, 2)
    seen = {tuple(Rotate90()(square[None] * 1.0, square, np.random.default_rng(s))[1].ravel()) for s in range(40)}
    assert seen == {(0, 1, 2, 3), (1, 3, 0, 2), (3, 2, 1, 0), (2, 0, 3, 1)}


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotating_by_right_angles_moves_pixels_exactly(rng, degrees):
    picture = rng.random((2, 21, 21), dtype=np.float32)
    mask = rng.integers(0, 5, (21, 21))

    class Fixed:
        def uniform(self, low, high):
            return degrees

    turned, classes = Rotate(180)(picture, mask, Fixed())
    quarter_turns = -degrees // 90  # positive angles turn clockwise, NumPy's anticlockwise
    np.testing.assert_allclose(turned, np.rot90(picture, quarter_turns, (1, 2)), atol=1e-5)
    np.testing.assert_array_equal(classes, np.rot90(mask, quarter_turns))


def test_resample_reads_between_pixels_bilinearly_and_masks_at_the_nearest():
    picture, mask = np.float32([[[0, 1], [10, 11]]]), np.array([[0, 1], [2, 3]])
    rows, columns = np.float32([[0, 0.25, 0.75, 1]]), np.float32([[0, 0.75, 0.25, 1]])
    values, classes = resample(picture, mask, rows, columns)
    assert values.tolist() == [[[0, 3.25, 7.75, 11]]] and classes.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (12, 5)])
def test_beyond_the_border_it_mirrors_as_numpy_pads(rng, shape):
    picture, mask = rng.random((2, *shape), dtype=np.float32), rng.integers(0, 9, shape)
    rows, columns = np.mgrid[-20:31, -20:29].astype(np.float32)
    pads = [(20, 30 - shape[0] + 1), (20, 28 - shape[1] + 1)]
    values, classes = resample(picture, mask, rows, columns)
    np.testing.assert_array_equal(classes, np.pad(mask, pads, mode="reflect"))
    np.testing.assert_allclose(values, np.pad(picture, [(0, 0), *pads], mode="reflect"), atol=1e-6)


@given(length=st.integers(1, 9), index=st.integers(-50, 50))
def test_mirror_has_a_period_and_leaves_the_inside_alone(length, index):
    found = int(mirror(np.array([index]), length)[0])
    assert 0 <= found < length and found == int(mirror(np.array([-index]), length)[0])
    assert found == int(mirror(np.array([index + 2 * max(length - 1, 1)]), length)[0])
    if 0 <= index < length:
        assert found == index


def test_crops_come_from_everywhere_and_fit():
    mask = np.arange(30).reshape(5, 6)
    picture = mask[None].astype(np.float32)
    corners = set()
    for seed in range(200):
        cut, classes = Crop((2, 3))(picture, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(cut[0], classes)
        corners.add(int(classes[0, 0]))
        np.testing.assert_array_equal(classes - classes[0, 0], [[0, 1, 2], [6, 7, 8]])
    assert corners == {6 * top + left for top in range(4) for left in range(4)}


@pytest.mark.parametrize(
    "transform", [Crop((9, 7)), WarpedCrop((9, 7), degrees=0, scale=(1, 1), strength=0, probability=1.0)], ids=repr
)
def test_a_picture_smaller_than_the_crop_is_mirrored_up_to_it(transform):
    mask = np.arange(12).reshape(3, 4)
    cut, classes = transform(mask[None].astype(np.float32), mask, np.random.default_rng(0))
    top = mirror(np.arange(-3, 6), 3)[:, None]
    left = mirror(np.arange(-2, 5), 4)[None]
    np.testing.assert_array_equal(classes, mask[top, left])
    np.testing.assert_allclose(cut[0], mask[top, left])


def test_a_warped_crop_without_warping_is_a_crop(pair):
    plain = WarpedCrop(20, probability=0.0)(*pair, np.random.default_rng(4))
    still = WarpedCrop(20, degrees=0, scale=(1, 1), strength=0, probability=1.0)(*pair, np.random.default_rng(4))
    np.testing.assert_array_equal(plain[1], still[1])
    np.testing.assert_allclose(plain[0], still[0], atol=1e-5)


def test_magnification_makes_things_larger():
    dot = np.zeros((1, 101, 101), np.float32)
    dot[0, 40:61, 40:61] = 1
    mask = dot[0].astype(np.uint8)
    areas = [
        WarpedCrop(101, degrees=0, scale=(s, s), strength=0, probability=1.0)(dot, mask, np.random.default_rng(0))[
            1
        ].sum()
        for s in (0.8, 1.0, 2.0)
    ]
    assert areas == [pytest.approx(441 * s * s, rel=0.15) for s in (0.8, 1.0, 2.0)]


def test_elastic_displaces_by_about_its_strength():
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    picture = np.stack([rows, columns])
    inner = (slice(None), slice(40, 216), slice(40, 216))
    moved = [Elastic(8.0, 64.0)(picture, None, np.random.default_rng(s))[0][inner] - picture[inner] for s in range(10)]
    assert 4 < np.std(moved) < 9
    still = Elastic(0.0)(picture, None, np.random.default_rng(0))[0]
    np.testing.assert_allclose(still, picture, atol=1e-3)


def test_values_change_in_standard_deviations(pair):
    picture, mask = pair
    for factor, offset in ((1, 0), (100, -3)):
        scaled = picture * np.float32(factor) + np.float32(offset)
        deviation = scaled.std()
        shifts = [Brightness(0.5)(scaled, mask, np.random.default_rng(s))[0] - scaled for s in range(50)]
        assert all(np.ptp(shift) < 1e-5 * (deviation + abs(offset)) * 50 for shift in shifts)
        sizes = np.array([shift.mean() for shift in shifts]) / deviation
        assert 0.35 < np.abs(sizes).max() <= 0.5001 and sizes.min() < -0.2 and sizes.max() > 0.2
        ratios = [Contrast(0.5)(scaled, mask, np.random.default_rng(s))[0].std() / deviation for s in range(50)]
        assert 1 / 1.501 < min(ratios) < 0.8 and 1.3 < max(ratios) < 1.501
        kept = [Contrast(0.5)(scaled, mask, np.random.default_rng(s))[0].mean() for s in range(5)]
        np.testing.assert_allclose(kept, scaled.mean(), atol=1e-4 * deviation)
        noise = [(Noise(0.2)(scaled, mask, np.random.default_rng(s))[0] - scaled).std() / deviation for s in range(50)]
        assert min(noise) < 0.05 and 0.15 < max(noise) < 0.21


def test_compose_goes_in_order_with_one_generator(pair):
    together = Compose([Flip(), Crop(20), Noise()])(*pair, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    stepwise = Noise()(*Crop(20)(*Flip()(*pair, rng), rng), rng)
    np.testing.assert_array_equal(together[0], stepwise[0])


def test_default_augmentation_of_a_whole_sample():
    sample = cells(128, 0)
    picture, mask = default_augmentation(64)(sample.picture, sample.mask, np.random.default_rng(0))
    assert picture.shape == (1, 64, 64) and mask.shape == (64, 64) and np.isfinite(picture).all()
    _, objects = default_augmentation(64)(sample.picture, sample.instances, np.random.default_rng(0))
    np.testing.assert_array_equal(objects > 0, mask)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Crop(0), "size is 0; expected"),
        (lambda: Crop((3, 4, 5)), r"size is \(3, 4, 5\)"),
        (lambda: Crop(2.5), r"size is 2\.5"),
        (lambda: Flip(horizontal=2), "horizontal is 2; expected 0 to 1"),
        (lambda: Rotate(-1), "degrees is -1"),
        (lambda: Elastic(spacing=1), "spacing is 1; expected 2"),
        (lambda: WarpedCrop(32, scale=(0, 1)), r"scale is \(0, 1\)"),
        (lambda: WarpedCrop(32, probability=-0.1), r"probability is -0\.1"),
        (lambda: Noise(-1), "amount is -1"),
    ],
)
def test_parameters_out_of_range_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_transform_says_what_it_is():
    assert repr(augment.Crop(32)) == "Crop(size=32)"
