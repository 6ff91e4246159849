"""Anchors, coding, matching, sampling, levels and proposals: by hand, and against torchvision's stored numbers."""

import json

import numpy as np
import pytest
from reference_arrays import stored

from tinyseg import boxes as tb

F32 = np.float32
ANCHORS, BOXES, PYRAMID = stored("anchors"), stored("boxes"), stored("fpn_roi")
CASES = json.loads(str(ANCHORS["meta"]))["cases"]


# ---- anchors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_stored_anchors(name):
    case = CASES[name]["params"]
    generator = tb.AnchorGenerator(case["sizes"], case["ratios"])
    for level, cells in enumerate(generator.cells):
        np.testing.assert_array_equal(cells, ANCHORS[f"{name}/cell{level}"])
    anchors = generator(case["image_hw"], case["feats_hw"])
    np.testing.assert_array_equal(np.concatenate(anchors), ANCHORS[f"{name}/anchors"])
    assert anchors[0].dtype == F32


def test_fifteen_anchors_a_cell_by_default():
    assert tb.AnchorGenerator().num_anchors_per_location() == [15]
    assert tb.AnchorGenerator(((8,), (16,))).num_anchors_per_location() == [3, 3]


def test_anchors_by_hand():
    # ratio 4 makes a size of 2 four high and one wide; 0.5 and 2.5 round to even
    np.testing.assert_array_equal(tb.cell_anchors([2], [4, 1]), [[0, -2, 0, 2], [-1, -1, 1, 1]])
    np.testing.assert_array_equal(tb.cell_anchors([3, 5], [1]), [[-2, -2, 2, 2], [-2, -2, 2, 2]])
    # 7x9 pixels on 2x3 cells: strides 3 and 3
    grid = tb.grid_anchors(np.array([[-1, -2, 1, 2]], F32), (2, 3), (7, 9))
    np.testing.assert_array_equal((grid[:, :2] + grid[:, 2:]) / 2, [[0, 0], [3, 0], [6, 0], [0, 3], [3, 3], [6, 3]])


def test_bad_anchors():
    with pytest.raises(ValueError, match=r"sizes is \[0\]; expected one or more positive numbers"):
        tb.cell_anchors([0], [1])
    with pytest.raises(ValueError, match="aspect_ratios has 1 entries and sizes 2; expected one per feature map"):
        tb.AnchorGenerator(((8,), (16,)), ((1.0,),))
    with pytest.raises(ValueError, match="feature_sizes has 2 entries; expected 1"):
        tb.AnchorGenerator()((32, 32), [(2, 2), (1, 1)])
    with pytest.raises(ValueError, match="the feature map has 5x2 cells and the picture 4x4 pixels"):
        tb.AnchorGenerator()((4, 4), [(5, 2)])


# ---- coding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weights"), [("w10_10_5_5", (10, 10, 5, 5)), ("w1", (1, 1, 1, 1))])
@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_stored_coding(name, weights, dtype):
    t = {key: BOXES[f"box_coder_{name}/{key}"].astype(dtype) for key in ("proposals", "reference", "encoded", "codes")}
    encoded = tb.encode(t["reference"], t["proposals"], weights)
    np.testing.assert_allclose(encoded, t["encoded"], rtol=1e-5, atol=1e-5)
    assert encoded.dtype == dtype
    decoded = tb.decode(t["encoded"], t["proposals"], weights)[:, 0]
    np.testing.assert_allclose(decoded, BOXES[f"box_coder_{name}/decoded"], rtol=1e-5, atol=1e-4)
    decoded = tb.decode(t["codes"], t["proposals"], weights)
    expected = BOXES[f"box_coder_{name}/decoded_codes"]
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert decoded.dtype == dtype


def test_coding_by_hand():
    proposal, box = np.array([[0, 0, 4, 2.0]]), np.array([[2, 1, 10, 2.0]])
    code = tb.encode(box, proposal, (2, 1, 1, 3))
    np.testing.assert_allclose(code, [[2 * 4 / 4, 0.5 / 2, np.log(2), 3 * np.log(0.5)]], rtol=1e-15)
    np.testing.assert_allclose(tb.decode(code, proposal, (2, 1, 1, 3)), [box], rtol=1e-15)
    # a step of 1000 is cut to log(62.5)
    huge = tb.decode(np.array([[0, 0, 1000, 1000.0]]), proposal)
    np.testing.assert_allclose(huge, [[[2 - 125, 1 - 62.5, 2 + 125, 1 + 62.5]]], rtol=1e-14)


def test_coding_of_nothing():
    none = np.zeros((0, 4), F32)
    assert tb.encode(none, none).shape == (0, 4)
    assert tb.decode(np.zeros((0, 12), F32), none).shape == (0, 3, 4)


def test_bad_coding():
    good, flat = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], F32), np.array([[0, 0, 1, 1], [3, 0, 1, 1]], F32)
    with pytest.raises(ValueError, match="boxes has width -2.0 and height 1.0 in row 1; expected both above 0"):
        tb.encode(flat, good)
    with pytest.raises(ValueError, match="proposals has width -2.0"):
        tb.encode(good, flat)
    with pytest.raises(ValueError, match=r"boxes has shape \(1, 4\) and proposals \(2, 4\)"):
        tb.encode(good[:1], good)
    with pytest.raises(ValueError, match="codes has 1 rows; expected 2, one per proposal"):
        tb.decode(np.zeros((1, 4), F32), good)
    with pytest.raises(ValueError, match=r"codes has shape \(2, 3\)"):
        tb.decode(np.zeros((2, 3), F32), good)
    with pytest.raises(TypeError, match="boxes has dtype int64 and proposals float32; expected one floating type"):
        tb.encode(good.astype(int), good)
    with pytest.raises(TypeError, match="codes has dtype float32 and proposals float64; expected one floating type"):
        tb.decode(good, good.astype(float))
    with pytest.raises(ValueError, match=r"weights is \(1, 1, 0, 1\); expected four positive numbers"):
        tb.encode(good, good, (1, 1, 0, 1))


def test_stored_clipping():
    clipped = tb.clip_to_picture(BOXES["clip/boxes"], (80, 100))
    np.testing.assert_array_equal(clipped, BOXES["clip/clipped"])
    assert clipped.dtype == F32


# ---- matching -------------------------------------------------------------------------------------------------------


def test_matching_by_hand():
    iou = np.array([[0.1, 0.3, 0.8, 0.7, 0.0, 0.2], [0.2, 0.5, 0.8, 0.69, 0.1, 0.29]])
    # background below 0.3, ignored below 0.7; equal overlaps go to the first box
    assert tb.match(iou, 0.7, 0.3).tolist() == [-1, -2, 0, 0, -1, -1]
    assert tb.match(iou, 0.5, 0.5).tolist() == [-1, 1, 0, 0, -1, -1]


def test_low_quality_matches_by_hand():
    iou = np.array([[0.4, 0.4, 0.9, 0.0], [0.2, 0.0, 0.6, 0.0], [0.25, 0.25, 0.1, 0.0]])
    # box 1 claims candidate 2, and box 2 both 0 and 1; each of them is then matched with the box that it overlaps most
    assert tb.match(iou, 0.7, 0.3).tolist() == [-2, -2, 0, -1]
    assert tb.match(iou, 0.7, 0.3, allow_low_quality=True).tolist() == [0, 0, 0, -1]
    # a box that nothing overlaps claims what does not overlap it
    assert tb.match(np.array([[0.0, 0.0]]), 0.7, 0.3, allow_low_quality=True).tolist() == [0, 0]


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_matching_equals_the_definition(claims, seed):
    rng = np.random.default_rng(seed)
    iou = rng.integers(0, 11, (int(rng.integers(1, 5)), 30)).astype(F32) / F32(10)
    iou[rng.random(iou.shape) < 0.02] = np.nan  # of two boxes without area
    expected = []
    for column in iou.T:
        best = int(np.argmax(column))  # NaN counts as the largest
        claimed = claims and any(column[i] == row.max() for i, row in enumerate(iou))
        between = tb.BACKGROUND if column[best] < 0.6 else tb.IGNORED
        expected.append(between if column[best] < 0.8 and not claimed else best)
    assert tb.match(iou, 0.8, 0.6, claims).tolist() == expected


def test_matching_of_nothing():
    assert tb.match(np.zeros((0, 3)), 0.7, 0.3, allow_low_quality=True).tolist() == [-1, -1, -1]
    assert tb.match(np.zeros((2, 0)), 0.7, 0.3, allow_low_quality=True).shape == (0,)


def test_bad_matching():
    with pytest.raises(ValueError, match="low_threshold is 0.7; expected at most high_threshold, 0.3"):
        tb.match(np.zeros((1, 1)), 0.3, 0.7)
    with pytest.raises(ValueError, match=r"iou has shape \(3,\)"):
        tb.match(np.zeros(3), 0.7, 0.3)


# ---- sampling -------------------------------------------------------------------------------------------------------


def test_sampling_keeps_the_balance_and_the_seed():
    labels = np.repeat([0, 1, 2, -1], [500, 40, 60, 100])
    positives, negatives = tb.balanced_sample(labels, 128, 0.25, np.random.default_rng(3))
    assert (len(positives), len(negatives)) == (32, 96)
    assert (labels[positives] >= 1).all()
    assert (labels[negatives] == 0).all()
    for drawn in (positives, negatives):
        assert (np.diff(drawn) > 0).all()
    again = tb.balanced_sample(labels, 128, 0.25, np.random.default_rng(3))
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate([positives, negatives]))
    other = tb.balanced_sample(labels, 128, 0.25, np.random.default_rng(4))
    assert (other[1] != negatives).any()


def test_sampling_where_one_kind_is_scarce():
    generator = np.random.default_rng(0)
    positives, negatives = tb.balanced_sample(np.array([0, 1, 0, 0, 0, -1]), 4, 0.5, generator)
    assert positives.tolist() == [1]
    assert len(negatives) == 3  # negatives fill up
    positives, negatives = tb.balanced_sample(np.array([1, 1, 1, 0]), 4, 0.5, generator)
    assert (len(positives), negatives.tolist()) == (2, [3])  # positives do not
    positives, negatives = tb.balanced_sample(np.zeros(0, int), 4, 0.5, generator)
    assert (len(positives), len(negatives)) == (0, 0)


def test_every_candidate_has_the_same_chance():
    generator, counts = np.random.default_rng(1), np.zeros(10)
    for _ in range(2000):
        counts[tb.balanced_sample(np.zeros(10, int), 3, 0.5, generator)[1]] += 1
    # 600 expected; the standard deviation is about 20
    assert np.abs(counts - 600).max() < 100


def test_bad_sampling():
    with pytest.raises(ValueError, match="size is 4 and positive_fraction 1.5; expected at least 0, and a share"):
        tb.balanced_sample(np.zeros(3, int), 4, 1.5, np.random.default_rng(0))


# ---- levels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "lowest", "highest"), [("levels_2_5", 2, 5), ("levels_3_6", 3, 6)])
def test_stored_levels(name, lowest, highest):
    boxes, expected = PYRAMID[f"{name}/boxes"], PYRAMID[f"{name}/levels"] + lowest  # stored: counted from the first
    expected[-1] = lowest  # the last box is reversed, and NaN as an integer is whatever the machine makes of it
    levels = tb.level_of(boxes, lowest, highest)
    np.testing.assert_array_equal(levels, expected)
    assert levels.dtype == np.int64


@pytest.mark.parametrize("name", ["pool7_sr2", "pool3_sr0"])
def test_stored_levels_of_two_pictures(name):
    boxes = np.concatenate([PYRAMID[f"{name}/boxes0"], PYRAMID[f"{name}/boxes1"]])
    np.testing.assert_array_equal(tb.level_of(boxes) - 2, PYRAMID[f"{name}/levels"])


def test_levels_by_hand():
    sides = np.array([0, 1, 111, 112, 223, 224, 447, 448, 9000], F32)
    squares = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert tb.level_of(squares).tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5]
    assert tb.level_of(np.array([[5, 0, 0, 9]], F32)).tolist() == [2]
    assert tb.level_of(np.zeros((0, 4), F32)).shape == (0,)


# ---- proposals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("min_size", "key"), [(5.0, "keep5"), (1e-3, "keep1e_3")])
def test_stored_small_boxes(min_size, key):
    np.testing.assert_array_equal(
        tb.remove_small_boxes(BOXES["remove_small/boxes"], min_size), BOXES[f"remove_small/{key}"]
    )


def test_proposals_by_hand():
    boxes = np.array(
        [
            [0, 0, 10, 10],  # level 0: third of its level, cut by top_n_before
            [0, 0, 8, 8],  # suppresses nothing of the other level
            [20, 20, 30, 30],
            [0, 0, 8, 8],  # level 1: of a lower score than its equal on level 0, but kept
            [0, 0, 8, 9],  # suppressed by the one before
            [-50, 0, 0, 9],  # nothing left of it in the picture
            [30, 30, 60, 60],  # cut off at the picture's border
        ],
        F32,
    )
    scores = np.array([1, 9, 8, 7, 6, 10, 5], F32)
    kept, of_kept = tb.filter_proposals(boxes, scores, [3, 4], (40, 50), 2, 10)
    np.testing.assert_array_equal(of_kept, [9, 8, 7])  # top_n_before leaves level 1 the scores 10 and 7
    np.testing.assert_array_equal(kept, boxes[[1, 2, 3]])
    kept, of_kept = tb.filter_proposals(boxes, scores, [3, 4], (40, 50), 4, 3)
    np.testing.assert_array_equal(of_kept, [9, 8, 7])
    kept, of_kept = tb.filter_proposals(boxes, scores, [3, 4], (40, 50), 4, 10)
    np.testing.assert_array_equal(of_kept, [9, 8, 7, 5, 1])
    np.testing.assert_array_equal(kept[3], [30, 30, 50, 40])


@pytest.mark.parametrize("seed", range(20))
def test_the_best_of_a_level_are_in_stable_order(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, 40).astype(F32)  # many are equal
    scores[rng.integers(0, 40, 2)] = np.inf, -np.inf
    low = np.arange(40, dtype=F32)  # boxes far from each other
    boxes = np.stack([10 * low, low, 10 * low + 5, low + 5], axis=1)
    for count in (0, 1, 7, 39, 40, 50):
        kept, of_kept = tb.filter_proposals(boxes, scores, [40], (500, 500), count, 40, score_threshold=-np.inf)
        order = sorted(range(40), key=lambda i: -scores[i])[:count]
        np.testing.assert_array_equal(kept, boxes[order])
        np.testing.assert_array_equal(of_kept, scores[order])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_score_of_nan_comes_last(count):
    scores = np.array([1, np.nan, 3, 2], F32)
    boxes = np.array([[0, 0, 5, 5], [10, 0, 15, 5], [20, 0, 25, 5], [30, 0, 35, 5]], F32)
    kept, of_kept = tb.filter_proposals(boxes, scores, [4], (90, 90), count, 4)
    assert of_kept.tolist() == [3, 2, 1][:count]


def test_proposals_of_nothing():
    boxes, scores = tb.filter_proposals(np.zeros((0, 4), F32), np.zeros(0, F32), [0, 0], (40, 50), 5, 5)
    assert (boxes.shape, scores.shape, boxes.dtype) == ((0, 4), (0,), F32)


def test_proposals_whose_levels_do_not_add_up():
    with pytest.raises(ValueError, match=r"boxes has 2 rows, scores the shape \(2,\) and level_sizes the sum 3"):
        tb.filter_proposals(np.zeros((2, 4), F32), np.zeros(2, F32), [3], (40, 50), 5, 5)
