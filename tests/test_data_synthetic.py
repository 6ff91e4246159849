"""Made-up pictures: the same from the same seed, and their truth agrees with itself."""

import numpy as np
import pytest

from tinyseg.data import SyntheticCells, SyntheticShapes, boxes_of, cells, shapes, synthetic
from tinyseg.data.smooth import gaussian_blur, smooth_field

MAKERS = {"cells": cells, "shapes": shapes}


def assert_same(a, b):
    for name in ("picture", "mask", "instances", "classes", "boxes"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("size", [128, (96, 160), (16, 300), 16])
def test_types_shapes_and_ranges(make, size):
    sample = make(size, 3)
    height, width = (size, size) if isinstance(size, int) else size
    assert sample.picture.dtype == np.float32 and sample.picture.shape[1:] == (height, width)
    assert sample.picture.min() >= 0 and sample.picture.max() <= 1 and sample.picture.std() > 0.01
    assert sample.mask.dtype == np.uint8 and sample.mask.shape == (height, width)
    assert sample.instances.dtype == np.int32 and sample.instances.shape == (height, width)
    assert sample.classes.dtype == np.int64 and sample.boxes.dtype == np.float32
    assert sample.boxes.shape == (len(sample.classes), 4)
    assert sample.mask.max() < len(sample.class_names)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("seed", range(4))
def test_the_truth_agrees_with_itself(make, seed):
    sample = make(160, seed)
    count = len(sample.classes)
    assert count > 1
    assert np.unique(sample.instances).tolist() == list(range(count + 1))  # each is visible; no gaps
    np.testing.assert_array_equal(sample.mask, np.concatenate([[0], sample.classes])[sample.instances])
    masks = sample.instance_masks
    assert masks.shape == (count, 160, 160)
    for mask, box in zip(masks, sample.boxes, strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_seed_decides_everything(make):
    assert_same(make(96, 5), make(96, 5))
    assert_same(make(96, [5, 1]), make(96, np.random.default_rng([5, 1])))
    assert not np.array_equal(make(96, 5).picture, make(96, 6).picture)


@pytest.mark.parametrize("data_set", [SyntheticCells, SyntheticShapes])
def test_an_item_depends_on_seed_and_index_only(data_set):
    few, many = data_set(3, 64, seed=7), data_set(50, 64, seed=7)
    later = many[2]
    many[0]
    assert_same(later, few[2])
    assert_same(few[-1], few[2])
    assert [few[i].name for i in range(len(few))] == list(few.names) == ["0", "1", "2"]
    assert not np.array_equal(few[0].picture, few[1].picture)
    assert not np.array_equal(few[0].picture, data_set(3, 64, seed=8)[0].picture)
    with pytest.raises(IndexError, match="picture 3 was asked for; there are 3"):
        few[3]


def test_cells_can_be_told_by_brightness_and_membranes_are_part_of_them():
    for seed in range(3):
        sample, edges = cells(192, seed), cells(192, seed, truth="membranes")
        np.testing.assert_array_equal(sample.picture, edges.picture)
        inside, outside = sample.picture[0][sample.mask == 1], sample.picture[0][sample.mask == 0]
        assert inside.mean() < outside.mean() - 0.05
        assert np.all(sample.mask[edges.mask == 1] == 1) and 0.05 < edges.mask.mean() < 0.5 * sample.mask.mean()
        assert sample.picture[0][edges.mask == 1].mean() < inside.mean() - 0.05
        assert 0.3 < sample.mask.mean() < 0.75


def test_coverage_and_radius_of_cells_mean_what_they_say():
    assert cells(128, 0, coverage=0).mask.sum() == 0
    assert len(cells(128, 0, coverage=0).boxes) == 0
    small = np.mean([np.bincount(cells(200, s, radius=(6, 8)).instances.ravel())[1:].mean() for s in range(3)])
    large = np.mean([np.bincount(cells(200, s, radius=(24, 28)).instances.ravel())[1:].mean() for s in range(3)])
    assert small < 250 and large > 800


def test_shapes_names_counts_and_channels():
    found = set()
    for seed in range(10):
        sample = shapes(128, seed, count=(3, 5))
        assert 1 <= len(sample.classes) <= 5 and sample.picture.shape == (3, 128, 128)
        found |= set(sample.classes.tolist())
    assert found == {1, 2, 3}
    sample = shapes(128, 0, channels=1, names=("triangle", "disc"))
    assert sample.class_names == ("background", "triangle", "disc") and sample.picture.shape[0] == 1


@pytest.mark.parametrize("name, filled", [("disc", np.pi / 4), ("triangle", 0.5)])
def test_shapes_fill_their_boxes_as_their_geometry_says(name, filled):
    ratios = []
    for seed in range(20):
        sample = shapes(160, seed, count=(1, 1), names=(name,))
        x1, y1, x2, y2 = sample.boxes[0]
        if x1 > 0 and y1 > 0 and x2 < 160 and y2 < 160:
            ratios.append(sample.mask.sum() / ((x2 - x1) * (y2 - y1)))
    assert len(ratios) > 5 and abs(np.mean(ratios) - filled) < (0.02 if name == "disc" else 0.12)


def test_no_overlap_where_none_is_allowed():
    for seed in range(5):
        discs = shapes(200, seed, max_overlap=0, names=("disc",), count=(8, 8), radius=(20, 40))
        for mask, box in zip(discs.instance_masks, discs.boxes, strict=True):
            x1, y1, x2, y2 = box
            if x1 > 0 and y1 > 0 and x2 < 200 and y2 < 200:  # whole discs stay whole
                assert mask.sum() == pytest.approx(np.pi * ((x2 - x1) / 2) ** 2, rel=0.1)


def test_small_pictures_for_detectors_are_what_they_are_called(monkeypatch):
    """One to six objects 12 to 60 pixels across, of three classes, of which at most 30% is hidden."""
    canvases = []

    class Kept(synthetic._ShapeCanvas):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            canvases.append(self)

    data = SyntheticShapes(80, 128, seed=3, count=(1, 6), radius=(6, 30), max_overlap=0.3)
    assert data.class_names == ("background", "disc", "rectangle", "triangle") and data.num_classes == 4
    monkeypatch.setattr(synthetic, "_ShapeCanvas", Kept)
    samples = [data[i] for i in range(len(data))]
    assert {sample.picture.shape for sample in samples} == {(3, 128, 128)}
    assert {len(sample.classes) for sample in samples} == {1, 2, 3, 4, 5, 6}
    assert {k for sample in samples for k in sample.classes} == {1, 2, 3}
    sides, hidden = [], []
    for sample, canvas in zip(samples, canvases, strict=True):
        visible = sample.instance_masks.sum(axis=(1, 2))
        hidden += (1 - visible / canvas.areas[1:]).tolist()
        x1, y1, x2, y2 = sample.boxes.T
        discs = (sample.classes == 1) & (x1 > 0) & (y1 > 0) & (x2 < 128) & (y2 < 128) & (visible == canvas.areas[1:])
        sides += (x2 - x1)[discs].tolist()
        assert np.maximum(x2 - x1, y2 - y1).max() <= 61
        nothing = sample.picture[:, sample.mask == 0]
        assert nothing.std(axis=1).min() > 0.05  # textured and noisy
    assert 0.2 < max(hidden) <= 0.3 and np.mean(np.array(hidden) > 0) > 0.1
    assert 11 <= min(sides) <= 14 and 55 <= max(sides) <= 61


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: cells(8), "size is 8; expected"),
        (lambda: cells((64, 64, 3)), r"size is \(64, 64, 3\)"),
        (lambda: cells(64, radius=(9, 5)), r"radius is \(9, 5\); expected \(smallest, largest\)"),
        (lambda: cells(64, coverage=0.9), r"coverage is 0\.9; expected 0 to 0\.8"),
        (lambda: cells(64, truth="nuclei"), "truth is 'nuclei'; expected 'cells' or 'membranes'"),
        (lambda: shapes(64, channels=2), "channels is 2; expected 1 or 3"),
        (lambda: shapes(64, names=("star",)), r"names is \('star',\); expected some of disc, rectangle, triangle"),
        (lambda: shapes(64, max_overlap=2), "max_overlap is 2; expected 0 to 1"),
        (lambda: SyntheticCells(0), "n is 0 and seed is 0; expected n of 1 or more"),
        (lambda: SyntheticShapes(3, 64, seed=-1), "seed is -1"),
        (lambda: SyntheticShapes(3, 64, noise=-1), "noise is -1; expected 0 to 1"),
    ],
)
def test_parameters_out_of_range_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_boxes_worked_out_by_hand():
    instances = np.zeros((5, 6), int)
    instances[1:3, 2:5] = 1
    instances[4, 0] = 2
    assert boxes_of(instances, 2).tolist() == [[2, 1, 5, 3], [0, 4, 1, 5]]
    assert boxes_of(np.zeros((3, 3), int), 0).shape == (0, 4)


# ---- smooth fields -------------------------------------------------------------------------------------------------


def test_a_field_is_smooth_and_goes_through_the_numbers_it_is_made_of(rng):
    numbers = np.random.default_rng(0).standard_normal((2, 8, 9), dtype=np.float32)
    fields = smooth_field(rng, (41, 51), 10.0, 2)  # knots at 0, 10, ..., one before them and three behind
    np.testing.assert_allclose(fields[:, ::10, ::10], numbers[:, 1:6, 1:7], atol=1e-5)
    assert np.abs(np.diff(fields, axis=1)).max() < 0.6
    assert smooth_field(rng, (5, 6), 3.0).shape == (5, 6)


def test_blur_by_hand_and_in_general(rng):
    point = np.zeros((9, 9))
    point[4, 4] = 1
    blurred = gaussian_blur(point, 1.0)
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    weights /= weights.sum()
    np.testing.assert_allclose(blurred[1:8, 1:8], np.outer(weights, weights), atol=1e-15)
    picture = rng.random((2, 7, 12))
    assert gaussian_blur(picture, 2.0).shape == picture.shape
    np.testing.assert_allclose(gaussian_blur(np.ones((5, 5)), 3.0), 1)  # constant in, constant out; mirrored border
    np.testing.assert_array_equal(gaussian_blur(picture, 0), picture)
